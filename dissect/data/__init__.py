"""Text in: corpora, packing, windows of tokens."""
