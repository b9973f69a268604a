"""JSON read in pieces: whole lines, and the values of an array, of which only a few are in memory at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

LEAST = 1 << 16  # characters that are looked at together
NEAR = 10  # a truncated value is reported as broken this near to its end, as "-Infinit"

DECODER = json.JSONDecoder()
MARKS: Any = re.compile(r"\s*([,\]])?\s*")  # matches anywhere


class Broken(Exception):
    """What is wrong with a file, and in which line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line, self.reason = line, reason


def joined_lines(first: str, pieces: Iterable[str]) -> Iterator[str]:
    """Whole lines out of pieces of them."""
    parts = [first]
    for piece in pieces:
        if parts and parts[-1].endswith("\n"):
            yield "".join(parts)
            parts = []
        parts.append(piece)
    yield "".join(parts)


class _Window:
    """The part of a file that is in memory, `text`, of which everything before `at`, in line `line`, has been used."""

    def __init__(self, first: str, pieces: Iterator[str], line: int) -> None:
        self.text, self.at, self.line = first, 0, line
        self._pieces = pieces

    def move(self, to: int) -> None:
        """Use what is before `to`."""
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def grow(self) -> bool:
        """Drop what was used and read more, to twice what is left; False at the end of the file."""
        left = self.text[self.at :]
        parts, size, wanted = [left], len(left), max(LEAST, 2 * len(left))
        while size < wanted and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            size += len(piece)
        self.text, self.at = "".join(parts), 0
        return size > len(left)

    def mark(self) -> str:
        """What follows, past the space around it: `,`, `]`, or nothing for a value or the end."""
        match = MARKS.match(self.text, self.at)
        while match.end() == len(self.text) and self.grow():
            match = MARKS.match(self.text, self.at)
        self.move(match.end())
        return match[1] or ""


def array_values(first: str, pieces: Iterator[str], line: int) -> Iterator[tuple[int, Any]]:
    """The values of the array that begins in `first`, objects, lists and texts, each with the number of its line.

    A bare number that is cut between two pieces may be given in two parts; rows are never bare numbers.

    Raises:
        Broken: It is not JSON, is truncated, or something follows it.
    """
    window = _Window(first, pieces, line)
    window.move(first.index("[") + 1)
    mark = window.mark()
    more = mark != "]"
    if mark == ",":
        raise Broken(window.line, "is not JSON (',' without a value before it)")
    while more:
        line = window.line
        yield line, _value(window)
        mark = window.mark()
        if not mark:
            raise Broken(window.line, "is not JSON (no ',' or ']' after a value of the array)")
        more = mark == ","
    if window.mark() or window.at < len(window.text):
        raise Broken(window.line, "has something after the end of the array")


def _value(window: _Window) -> Any:
    """The value at the window's position, which moves past it."""
    while True:
        try:
            value, end = DECODER.raw_decode(window.text, window.at)
            window.move(end)
            return value
        except json.JSONDecodeError as error:
            cut_off = error.msg.startswith("Unterminated") or error.pos >= len(window.text) - NEAR
            if not (cut_off and window.grow()):
                line = window.line + window.text.count("\n", window.at, error.pos)
                raise Broken(line, f"is not JSON ({error.msg})") from error
        except (ValueError, RecursionError) as error:
            raise Broken(window.line, f"is not JSON ({error})") from error
