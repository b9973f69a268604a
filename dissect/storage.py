"""Files that are written whole or not at all: aside first, flushed to disk, then renamed into place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dissect.errors import DissectError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a path beside `path`, then rename: a reader sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.part")
    try:
        write(aside)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


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
