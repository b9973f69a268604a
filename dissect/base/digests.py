"""Digests by which a damaged file or record is told from a good one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int16
from torch import Tensor

from dissect.base.errors import DissectError

SEAL = "sha256"
TIMES = ("seconds",)  # outside the seal: no result depends on them, and two runs of the same have the same seals


def digest_of(values: Mapping[str, Int16[Tensor, " layer *unit"]]) -> str:
    """sha256 over the names, shapes and numbers of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(values.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """sha256 over a file's bytes.

    Raises:
        DissectError: It is missing or unreadable.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DissectError(f"{path} is missing or unreadable: {error.strerror or error}") from error


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON record with its own sha256 in it."""
    return {**record, SEAL: _digest(record)}


def is_intact(record: Any) -> bool:
    """True for a record that has the digest it was sealed with."""
    return isinstance(record, dict) and record.get(SEAL) == _digest(record)


def _digest(record: Mapping[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name not in (SEAL, *TIMES)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
