"""A TransformerLens model of the weights that a transformers model has now, to measure it while it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dissect.backend.sites import skips_layers
from dissect.base.checks import is_bridge
from dissect.models.adopt import adopt
from dissect.models.architectures import ARCHITECTURES
from dissect.models.bridged import bridge_of
from dissect.models.convert import hooked_model
from dissect.models.memory import copy_of
from dissect.models.source import source_of
from dissect.models.tokenizer import attach_tokenizer


def snapshot(hf_model: Any, like: Any) -> Any:
    """A copy of `hf_model` as a model of the class, dtype, device and tokenizer of `like`, which `load_model` gave.

    It is the model that `load_model` would give of the weights saved in that dtype. Its logits are not compared with
    transformers' again: those of `like`, which has the same parts, were.

    Raises:
        DissectError: The weights cannot be copied.
    """
    source, device = source_of(like), torch.device(like.cfg.device)
    copied = copy_of(hf_model, like.cfg.dtype, device)
    if is_bridge(like):
        bridge = bridge_of(copied, source.architecture, name=like.cfg.model_name, device=device)
        model = adopt(bridge, skip_layers=skips_layers(like))
    else:
        model = hooked_model(copied, ARCHITECTURES[source.architecture], name=like.cfg.model_name)
    if like.tokenizer is not None:
        attach_tokenizer(model, like.tokenizer, copied.config)
    model.source = source
    return model


@contextmanager
def no_bars() -> Iterator[None]:
    """Inside the `with` block transformers shows no bars of its own: a model that is copied often would show many."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
