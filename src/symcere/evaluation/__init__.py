"""From rankings to a report: metrics, comparison, significance, pages."""
