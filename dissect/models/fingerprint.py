"""Fingerprints: what exactly went into a run."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from itertools import chain
from typing import Any

from dissect.base.checksums import checksum, raw

version = functools.cache(importlib.metadata.version)  # it reads a file, and a process keeps what it has imported
PACKAGES = ("dissect", "torch", "transformer-lens", "transformers", "datasets", "numpy")


def model_fingerprint(model: Any) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all parameters."""
    parts = (
        (f"{name} {parameter.dtype} {tuple(parameter.shape)}", raw(parameter))
        for name, parameter in model.named_parameters()
    )
    return checksum(chain.from_iterable(parts))


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide results."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
