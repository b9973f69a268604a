"""Files that are written whole or not at all (aside first, flushed to disk, then renamed), in a folder held alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dissect.errors import DissectError

LOCK = ".lock"  # stays in the folder, empty; what counts is whether a process holds it


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole: a reader sees the old file or the new one.

    Raises:
        DissectError: The disk is full, or the folder is read-only or gone. What was there before is unharmed.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        try:
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise DissectError(
            f"cannot write {path}: {error.strerror or error}; what was there before is unharmed: "
            "give the folder room and permission and do the same again, or choose another --out"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole, for people to read too."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DissectError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DissectError(f"{path} does not exist; is {path.parent} a run folder of dissect?") from error
    except (OSError, ValueError) as error:
        raise DissectError(f"{path} is damaged or unreadable: {error}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder`, made where there is none, for this process alone.

    The lock ends with its process, however that ends: the file that a killed process leaves holds nobody back.

    Raises:
        DissectError: Another process holds it, at once; or the folder cannot be written to.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise DissectError(
            f"another process is writing to {folder}; wait until it ends, or choose another --out"
        ) from error
    except OSError as error:
        raise DissectError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from error
    try:
        yield
    finally:
        lock.release()
