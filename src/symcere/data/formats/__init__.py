"""The formats: bytes of a raw file to rows of text, block by block, whatever they mean."""
