"""Checksums of what a model is loaded from, by which changed weights are noticed without loading them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from dissect.base.checksums import checksum, checksum_of_file
from dissect.base.errors import DissectError

LOADED = (".safetensors", ".bin", ".json")  # weights, and the configurations of model and tokenizer


def folder_checksum(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's weights and configurations.

    Raises:
        DissectError: One of them cannot be read.
    """
    try:
        paths = [path for path in sorted(folder.iterdir()) if path.suffix in LOADED and path.is_file()]
        return checksum(f"{path.name} {_file_checksum(path, _state(path))}\n" for path in paths)
    except OSError as error:
        raise DissectError(f"cannot read the model in {folder}: {error.strerror or error}") from error


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=1_000)
def _file_checksum(path: Path, state: tuple[int, ...]) -> str:
    """A file's checksum, read again only where its state is another one: weights are large, and grids ask often."""
    return checksum_of_file(path)
