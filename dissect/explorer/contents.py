"""A checksum of a model's contents, so that no result is reused after the model has changed."""

from __future__ import annotations

from typing import Any

from dissect.base.checksums import checksum
from dissect.models.fingerprint import model_fingerprint


def contents(model: Any) -> str:
    """A checksum of what decides a model's predictions: its parameters, bit for bit, and its hooks.

    It is valid in this process only: hooks have other ids in another one.
    """
    hooks = [
        (name, *module._forward_pre_hooks, *module._forward_hooks)  # their ids, which no other hook will have
        for name, module in model.named_modules()
    ]
    return checksum([repr((model_fingerprint(model), hooks))])
