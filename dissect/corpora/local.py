"""Corpora in local files: what a path, a folder or a glob, with or without a column, stands for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from dissect.corpora.sources import LOCAL_BUFFER, Paragraphs, Source, TextFiles
from dissect.corpora.tables import Table
from dissect.errors import DissectError

FORMATS = {".txt": "text", ".jsonl": "json", ".parquet": "parquet"}

# One letter before the colon is a Windows drive, and a column has no slash in it.
PATH_AND_COLUMN = re.compile(r"(?P<path>..+):(?P<column>[^:/\\]+)", re.DOTALL)


def local_source(spec: str) -> Source | None:
    """The files that `path` or `path:column` names, or None if there is no such file.

    Raises:
        DissectError: The files are of a kind that is not read, of several kinds, or text with a column.
    """
    files = find_files(spec) if spec else {}
    match, column = PATH_AND_COLUMN.fullmatch(spec), None
    if not files and match:
        files, column = find_files(match["path"]), match["column"]
    if spec and not files and Path(spec).expanduser().is_dir():
        raise DissectError(f"folder {spec!r} holds no {', '.join(FORMATS)} file")
    if not files:
        return None
    kind = one_format(spec, files)
    if kind == "text":
        return _text_source(spec, files, column)
    names = tuple(glob.escape(str(files[name])) for name in sorted(files))
    return Table(kind, column or "text", data_files=names, buffer=LOCAL_BUFFER)


def find_files(path: str) -> dict[str, Path]:
    """The files that a path, a folder or a glob stands for, by a name that fixes their order.

    In a folder, and in those below it, hidden files and files of other kinds are passed over.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        found = {file.relative_to(root): file for file in root.rglob("*") if file.suffix in FORMATS}
        return {
            name.as_posix(): file
            for name, file in found.items()
            if file.is_file() and not any(part.startswith(".") for part in name.parts)
        }
    if root.is_file():
        return {root.name: root}
    paths = [Path(found) for found in glob.glob(str(root), recursive=True)]
    return {file.as_posix(): file for file in paths if file.is_file()}


def one_format(spec: str, files: Mapping[str, Path]) -> str:
    """The format that all `files` have.

    Raises:
        DissectError: They have several, or one that is not read.
    """
    suffixes = sorted({file.suffix for file in files.values()})
    for suffix in suffixes:
        if suffix not in FORMATS:
            raise DissectError(f"{spec!r}: a corpus is read from {', '.join(FORMATS)} files, not from {suffix!r} files")
    if len(suffixes) > 1:
        raise DissectError(f"{spec!r} holds {' and '.join(suffixes)} files; name one kind, as in '*{suffixes[0]}'")
    return FORMATS[suffixes[0]]


def is_path_like(spec: str) -> bool:
    """True where `spec` looks like a path or a glob rather than a name."""
    path = spec.rpartition(":")[0] or spec
    return any(mark in spec for mark in "/\\*?") or os.path.splitext(path)[1] in FORMATS


def _text_source(spec: str, files: Mapping[str, Path], column: str | None) -> Source:
    """Each file a document; but a single file's paragraphs, since one document could not be split in two."""
    if column is not None:
        raise DissectError(f"{spec!r}: text files have no columns; leave out ':{column}'")
    if len(files) == 1:
        return Paragraphs(next(iter(files.values())))
    return TextFiles(partial(dict, files))
