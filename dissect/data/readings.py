"""Notes on the documents that windows are made of: their digests, and what was replaced while reading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dissect.data.decoding import Repaired, not_text, too_many
from dissect.data.splits import digest


class Reading(NamedTuple):
    """A document that was read.

    Attributes:
        digest: Identifies its text.
        characters: How long it is.
        replaced: How many of them are U+FFFD, for what could not be decoded.
        file: The file they are in, if any.
        special: True where it has a special token of the tokenizer written out, which is read as text.
    """

    digest: bytes
    characters: int
    replaced: int
    file: str
    special: bool


def noted(documents: Iterator[str], tokenizer: Any, readings: list[Reading]) -> Iterator[str]:
    """The same documents; `readings` gets one of each."""
    special = written_out(tokenizer)
    for document in documents:
        readings.append(reading_of(document, special))
        yield document


def reading_of(document: str, special: re.Pattern[str] | None) -> Reading:
    """The notes on a document; `special` is what `written_out` gives."""
    file, replaced = (document.file, document.replaced) if isinstance(document, Repaired) else ("", 0)
    found = special is not None and special.search(document) is not None
    return Reading(digest(document)[:16], len(document), replaced, file, found)


def written_out(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches the special tokens that are cut into pieces where a text has them; None where there are none."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {number: token.content for number, token in added.items() if token.special and token.content.strip()}
    if not special:
        return None
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    as_text = tokenizer(list(special.values()), **options)["input_ids"]
    cut = [text for (number, text), ids in zip(special.items(), as_text, strict=True) if list(ids) != [number]]
    return re.compile("|".join(map(re.escape, sorted(cut, key=len, reverse=True)))) if cut else None


def check_text(corpus: str, readings: Sequence[Reading]) -> None:
    """Raise `DissectError` where too much of what was read is not text; it names the worst file."""
    replaced, characters = (sum(getattr(each, name) for each in readings) for name in ("replaced", "characters"))
    if replaced and too_many(replaced, characters):
        worst = max(readings, key=lambda reading: reading.replaced).file
        raise not_text(worst if worst == corpus else f"{corpus!r} (see {worst})", replaced, characters)


def counts(readings: Sequence[Reading]) -> dict[str, int]:
    """For a record: characters that were `replaced`, documents with `special_tokens` as text; not where it is none."""
    found = {
        "replaced": sum(reading.replaced for reading in readings),
        "special_tokens": sum(reading.special for reading in readings),
    }
    return {name: count for name, count in found.items() if count}
