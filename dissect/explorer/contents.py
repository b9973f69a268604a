"""What a model is by its contents, so that nothing is remembered of a model that has been changed since."""

from __future__ import annotations

from typing import Any

from dissect.base.checksums import checksum
from dissect.models.fingerprint import model_fingerprint


def contents(model: Any) -> str:
    """A checksum of what decides a model's predictions: its parameters, bit for bit, and the hooks that are on it.

    It means nothing in another process, where hooks have other numbers.
    """
    hooks = [
        (name, *module._forward_pre_hooks, *module._forward_hooks)  # their numbers, which no other hook will have
        for name, module in model.named_modules()
    ]
    return checksum([repr((model_fingerprint(model), hooks))])
