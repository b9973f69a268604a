"""Documents into windows of tokens: each begins with BOS, and BOS stands between two documents."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from dissect.base.errors import DissectError

SLICE = 20_000
"""Characters that are tokenised at once; a longer document is cut, where possible at a line's end."""

BATCH = 16
"""Slices given to the tokenizer together: enough for its threads, few enough not to read far ahead."""

BREAKS = ("\n", " ")


class Piece(NamedTuple):
    """Tokens of a document: all of them, or of one slice of it."""

    document: int
    ids: list[int]


class Row(NamedTuple):
    """A window: its tokens, and the document each of them is of."""

    ids: list[int]
    documents: list[int]


def beginning(tokenizer: Any) -> int:
    """The token that windows and documents begin with: BOS, or else end-of-text, or else CLS.

    Raises:
        DissectError: The tokenizer has none of them.
    """
    for name in ("bos_token_id", "eos_token_id", "cls_token_id"):
        token = getattr(tokenizer, name, None)
        if token is not None:
            return token
    raise DissectError(
        "the tokenizer has neither a BOS nor an end-of-text token to begin windows with; "
        'set one: model.tokenizer.bos_token = "…", a token of its vocabulary'
    )


def slices(document: str) -> Iterator[str]:
    """A document in parts of at most `SLICE` characters, which joined are the document again."""
    start = 0
    while len(document) - start > SLICE:
        stop = start + SLICE
        # Before the break, since the usual tokenizers put a space with the word that follows.
        stop = next((at for at in (document.rfind(b, start + 1, stop) for b in BREAKS) if at > start), stop)
        yield document[start:stop]
        start = stop
    yield document[start:]


def encode(documents: Iterable[str], tokenizer: Any) -> Iterator[Piece]:
    """The documents' tokens, without special ones; lazily, so that no more is read than is used."""
    parts = ((number, part) for number, document in enumerate(documents) for part in slices(document))
    while batch := list(itertools.islice(parts, BATCH)):
        # A literal "<s>" in a text is three characters, not BOS.
        encoded = tokenizer(
            [part for _, part in batch], add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        for (number, _), ids in zip(batch, encoded["input_ids"], strict=True):
            if ids:
                yield Piece(number, ids)


def pack(pieces: Iterable[Piece], bos: int, width: int) -> Iterator[Row]:
    """Windows of `width` tokens. The last may be shorter, and is not given if it holds nothing but BOS.

    A document that begins with its window has that window's BOS; any other one has its own. A BOS is of the document
    that follows it.
    """
    window, document = Row([bos], []), None
    for piece in pieces:
        needs_bos = piece.document != document and len(window.ids) > 1
        document = piece.document
        for token in itertools.chain([bos] if needs_bos else [], piece.ids):
            window.ids.append(token)
            window.documents.extend([document] * (len(window.ids) - len(window.documents)))  # the first BOS too
            if len(window.ids) == width:
                yield window
                window = Row([bos], [])
    if len(window.ids) > 1:
        yield window


def as_tensors(
    rows: list[Row], bos: int, tokens: int
) -> tuple[
    Int64[Tensor, "window position"],
    Bool[Tensor, "window position"],
    Int64[Tensor, "window position"],
    Bool[Tensor, "window position"],
]:
    """The rows as one tensor, a short last one padded with `bos`; True for the first `tokens` after BOS; documents;
    and True everywhere but at the padding of the last row, which counts to that row's last document.
    """
    width, last = len(rows[0].ids), rows[-1]
    missing = width - len(last.ids)
    rows = [*rows[:-1], Row(last.ids + [bos] * missing, last.documents + last.documents[-1:] * missing)]
    keep = torch.ones(len(rows), width, dtype=torch.bool)
    keep[:, 0] = False
    keep[-1, 1 + tokens - (len(rows) - 1) * (width - 1) :] = False
    mask = torch.ones_like(keep)
    mask[-1, len(last.ids) :] = False
    ids, documents = (torch.tensor(each, dtype=torch.int64) for each in zip(*rows, strict=True))
    return ids, keep, documents, mask
