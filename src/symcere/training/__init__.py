"""The one loop that steps an optimiser, and what it needs: settings, batches, known pairs."""
