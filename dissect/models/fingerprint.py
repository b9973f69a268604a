"""Fingerprints: what exactly went into a run."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Iterator
from itertools import chain
from typing import Any

from torch import Tensor

from dissect.base.checks import is_bridge
from dissect.base.checksums import checksum, raw
from dissect.models.bridged import WRAPPER

version = functools.cache(importlib.metadata.version)  # it reads a file, and a process keeps what it has imported
PACKAGES = ("dissect", "torch", "transformer-lens", "transformers", "datasets", "numpy")


def model_fingerprint(model: Any) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all parameters.

    Those of a bridge have transformers' names, whatever wraps its modules, so that versions of TransformerLens agree.
    """
    named = parameters_of_bridge(model) if is_bridge(model) else model.named_parameters()
    parts = ((f"{name} {parameter.dtype} {tuple(parameter.shape)}", raw(parameter)) for name, parameter in named)
    return checksum(chain.from_iterable(parts))


def parameters_of_bridge(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a bridge's transformers model by their names there, each once.

    Those of a fused attention, which is taken apart, keep TransformerLens' names. The zero bias that TransformerLens 3
    gives every unembedding is left out.
    """
    invented = getattr(model.unembed.original_component, "bias", None)
    for name, parameter in model.original_model.named_parameters():
        weight = _fetched(model.original_model, name, parameter)
        if parameter is not invented or weight.any():
            yield name.replace(WRAPPER, ""), weight


def _fetched(hf_model: Any, name: str, parameter: Tensor) -> Tensor:
    """A parameter, from where accelerate keeps it if it is offloaded."""
    if not parameter.is_meta:
        return parameter
    owner, _, last = name.rpartition(".")
    hook = hf_model.get_submodule(owner)._hf_hook
    maps = (getattr(each, "weights_map", None) for each in getattr(hook, "hooks", (hook,)))
    return next(weights for weights in maps if weights is not None)[last]


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide results."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
