"""Train and test: which side a document is on, decided by its text alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from dissect.base.checksums import checksum

SIDES = ("forget", "retain")  # the two data sets of a run
SPLITS = ("train", "test")  # the two halves of each


def digest(document: str) -> bytes:
    """SHA-256 of a document without the space around it."""
    return bytes.fromhex(checksum([document.strip().encode("utf-8", errors="surrogatepass")]))


def side(document: str) -> str:
    """The split a document belongs to: about half are in each, the same ones for every seed and corpus.

    Its text decides, so equal documents are on the same side, wherever they come from, and train with one
    seed never meets test with another.
    """
    return SPLITS[digest(document)[0] >> 7]


def one_side(documents: Iterable[str | None], split: str, tally: Counter[str]) -> Iterator[str]:
    """The documents of one split, each once, and not those without text; `tally` counts what was met.

    The digests of the documents given are kept, about 100 bytes each, to recognise repeats.
    """
    seen: set[bytes] = set()
    for document in documents:
        kind = _kind(document, split, seen)
        tally[kind] += 1
        if kind == "kept" and document is not None:
            seen.add(digest(document)[:16])
            yield document


def _kind(document: str | None, split: str, seen: set[bytes]) -> str:
    """What becomes of a document: `empty`, `other split`, `duplicate` or `kept`."""
    if document is None or not document.strip():
        return "empty"
    if side(document) != split:
        return "other split"
    return "duplicate" if digest(document)[:16] in seen else "kept"
