"""Fingerprints: what exactly went into a run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from typing import Any

import torch

PACKAGES = ("dissect", "torch", "transformer-lens", "transformers", "datasets", "numpy")


def model_fingerprint(model: Any) -> str:
    """sha256 over the names, shapes and bytes of all parameters."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        raw = parameter.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
        digest.update(memoryview(raw.numpy()))
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide results."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
