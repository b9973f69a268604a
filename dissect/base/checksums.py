"""SHA-256 checksums, the only place that makes them: of what went into a run, and against damaged files.

Nothing here imports torch, so that the command line's help stays quick.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "sha256"  # the field of a JSON record that holds its own
TIMES = ("seconds",)  # not in a record's checksum: no result depends on them, and equal runs have equal checksums
CHUNK = 1 << 20  # bytes of a file read at a time


def checksum(parts: Iterable[str | bytes | memoryview]) -> str:
    """SHA-256 over parts in order, as if they were one, in hexadecimal digits; text counts as its UTF-8."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()


def checksum_of_json(value: Any, *, sort_keys: bool = False) -> str:
    """That of a JSON value's text."""
    return checksum([json.dumps(value, sort_keys=sort_keys)])


def checksum_of_file(path: Path) -> str:
    """That of a file's bytes.

    Raises:
        OSError: It is missing or unreadable.
    """
    return checksum(_chunks(path))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def checksum_of_tensors(values: Mapping[str, Tensor]) -> str:
    """That of the names, shapes and numbers of tensors, whatever their order."""
    named = sorted(values.items(), key=lambda item: item[0])
    return checksum(part for name, tensor in named for part in (f"{name} {tuple(tensor.shape)}", raw(tensor)))


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's numbers."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def with_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON record with its own checksum in it."""
    return {**record, CHECKSUM: _checksum_of_record(record)}


def is_intact(record: Any) -> bool:
    """True for a record that has the checksum it was written with."""
    return isinstance(record, dict) and record.get(CHECKSUM) == _checksum_of_record(record)


def _checksum_of_record(record: Mapping[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name not in (CHECKSUM, *TIMES)}
    return checksum_of_json(content, sort_keys=True)
