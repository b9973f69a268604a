"""A file's bytes as text: a byte-order mark decides the encoding, else it is UTF-8; what is not text is marked."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from dissect.base.errors import DissectError, summary

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""What a file may be compressed with, by the last suffix of its name, in any case."""

# In this order: that of UTF-32 begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

MARK = "\udfff"  # half of a surrogate pair: valid UTF-8, 16 or 32 never has it alone
MARKED = "dissect.mark"  # as errors="replace", but what is replaced can be told from a U+FFFD that was there
codecs.register_error(MARKED, lambda error: (MARK, cast(UnicodeDecodeError, error).end))

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # a mark, or one that JSON spells out

PIECE = 1 << 20
"""Characters of a line that are in memory at once, so that a file without lines is refused before it fills it."""

TOLERATED = 1_000
"""One character in so many may be no text."""

HOPELESS = 10_000
"""A file with so many of them, and more than tolerated, is not read to its end."""


class Repaired(str):
    """A document with replaced characters: how many, and in which file."""

    file: str
    replaced: int


def repaired(text: str, file: Path) -> str:
    """`text` with U+FFFD for every mark and every half of a surrogate pair; the same object where there is none."""
    clean, replaced = LONE_SURROGATE.subn("\ufffd", text)
    if not replaced:
        return text
    document = Repaired(clean)
    document.file, document.replaced = str(file), replaced
    return document


def not_text(file: str, replaced: int, characters: int) -> DissectError:
    """The error for text that is mostly something else."""
    return DissectError(
        f"{file}: {replaced:,} of {characters:,} characters are not UTF-8, more than 1 in {TOLERATED:,}; if it is "
        "text in another encoding, convert it (iconv -f cp1252 -t utf-8), and leave out what is not text"
    )


def too_many(replaced: int, characters: int) -> bool:
    """True where more is replaced than text may have."""
    return replaced * TOLERATED > characters


def read_pieces(path: Path) -> Iterator[str]:
    """A file's text line by line, a line of more than `PIECE` characters in parts; compressed files are unpacked.

    What is not text, NUL included, is a `MARK` each, of which `repaired` makes U+FFFD.

    Raises:
        DissectError: The file cannot be read, or is not text at all.
    """
    characters = marks = 0
    try:
        with open_bytes(path) as stream, io.TextIOWrapper(stream, _encoding(stream), MARKED) as text:
            while piece := text.readline(PIECE):
                piece = piece.replace("\0", MARK)
                characters, marks = characters + len(piece), marks + piece.count(MARK)
                if marks > HOPELESS and too_many(marks, characters):
                    raise not_text(str(path), marks, characters)
                yield piece
    except OSError as error:
        raise DissectError(f"cannot read {path}: {summary(error)}") from error


def open_bytes(path: Path) -> BinaryIO:
    """A file to read from, unpacked as it is read; one that was cut off raises `OSError` at its end."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    import pyarrow

    return cast(BinaryIO, io.BufferedReader(pyarrow.input_stream(str(path), compression=compression)))  # type: ignore[arg-type]


def _encoding(stream: BinaryIO) -> str:
    head = cast(io.BufferedReader, stream).peek(4)[:4]
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")
