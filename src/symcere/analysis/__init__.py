"""What a fitted SymCERE learned from the words: anchors, reasons, geometry and exposure, each measured."""
