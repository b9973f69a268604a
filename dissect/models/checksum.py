"""Checksums of what a model is loaded from, by which changed weights are noticed without loading them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from dissect.base.errors import DissectError
from dissect.models.wheels import sha256_of

LOADED = (".safetensors", ".bin", ".json")  # weights, and the configurations of model and tokenizer


def folder_checksum(folder: Path) -> str:
    """sha256 over the names and bytes of a folder's weights and configurations.

    Raises:
        DissectError: One of them cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in LOADED and path.is_file():
                found = path.stat()
                state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                digest.update(f"{path.name} {_file_checksum(path, state)}\n".encode())
    except OSError as error:
        raise DissectError(f"cannot read the model in {folder}: {error.strerror or error}") from error
    return digest.hexdigest()


@lru_cache(maxsize=1_000)
def _file_checksum(path: Path, state: tuple[int, ...]) -> str:
    """A file's sha256, read again only where its state is another one: weights are large, and grids ask often."""
    return sha256_of(path)
