"""From a raw file to a split: read, filter to the k-core, part into train, valid and test."""
