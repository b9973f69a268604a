"""Selective pruning on TransformerLens: find the units a forget data set needs and a retain data set does not."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
