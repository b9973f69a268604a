"""Windows: the tokens a data set is measured on, and which of their positions count."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from tqdm.auto import tqdm

from dissect.base.checks import as_text_or_path, check_adopted, check_kind, check_seed, check_whole
from dissect.base.checksums import checksum
from dissect.base.errors import DissectError
from dissect.base.progress import hidden
from dissect.base.tokenizer_files import TOKENIZER_FILES
from dissect.data.corpora import read_documents
from dissect.data.packing import Piece, Row, as_tensors, beginning, encode, pack
from dissect.data.padding import as_mask, at_first, check_is_after, to_front
from dissect.data.readings import Reading, check_text, counts, noted

TENSORS = ("tokens", "keep", "documents", "attention_mask")


@dataclass(frozen=True, eq=False, repr=False)
class Windows:
    """Tokens of one data set, in windows that each stand alone.

    A kept position p counts twice: with its activations in statistics, and in evaluation with the prediction of
    its token, which the model makes at p - 1. So position 0, mostly BOS, is never kept.

    Attributes:
        tokens: Token ids, on the CPU.
        keep: True where a position counts.
        provenance: Where the tokens come from: with `load_windows`, its arguments and what it read.
        documents: The number of the document that each token is of, from 0 on; each window its own by default.
        texts: Digests of their documents, to recognise the same documents in another data set; not recorded.
        attention_mask: False at padding, which comes after a window's tokens and is never read by them; None where
            none was given. Positions that `keep` leaves out are still read: they are context.

    Raises:
        DissectError: `tokens` is not `window position`, `keep`, `documents` or `attention_mask` does not fit it, or
            `keep` keeps a position 0 or padding.
    """

    tokens: Int64[Tensor, "window position"]
    keep: Bool[Tensor, "window position"]
    provenance: dict[str, Any] = field(default_factory=dict)
    documents: Int64[Tensor, "window position"] = None  # type: ignore[assignment]
    texts: frozenset[bytes] = frozenset()
    attention_mask: Bool[Tensor, "window position"] | None = None

    def __post_init__(self) -> None:
        _check_tokens(self.tokens)
        _check_keep(self.keep, self.tokens)
        if self.attention_mask is not None:
            check_is_after(self.attention_mask, self.keep)
        if self.documents is not None:
            _check_documents(self.documents, self.tokens)
        # Copies: what the caller does to the originals later must not change the fingerprint.
        for name in TENSORS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, getattr(self, name).detach().clone())
        if self.documents is None:
            object.__setattr__(self, "documents", _one_a_window(self.tokens))

    @classmethod
    def from_tokens(
        cls,
        tokens: Tensor,
        keep: Tensor | None = None,
        documents: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
    ) -> Windows:
        """Windows of anyone's own tokens.

        Args:
            tokens: Token ids of any integer type, `window position`; each window should begin with BOS.
            keep: True where a position counts, of the same shape; by default everywhere but at a window's first token
                and at padding. Tokens that do not count are context of those that do.
            documents: The number of the document that each token is of, integers from 0 on, of the same shape: what
                intervals resample. By default each window is a document.
            attention_mask: 0 or False at padding, of the same shape, as tokenizers give it. Padding before a
                window's tokens is moved after them, in the windows and in what else is given here.

        Raises:
            DissectError: They are not of these types, shapes and ranges.
        """
        _check_tokens(tokens)
        mask = torch.ones(tokens.shape, dtype=torch.bool)
        if attention_mask is not None:
            mask = as_mask(attention_mask, tokens)
        if keep is None:
            keep = mask & ~at_first(mask)
        _check_is_bool(keep, tokens)
        given: dict[str, Any] = {} if documents is None else {"documents": _in_front(documents, tokens, mask)}
        return cls(
            to_front(tokens.to("cpu", torch.int64), mask),
            to_front(keep.to("cpu"), mask),
            **given,
            attention_mask=None if attention_mask is None else to_front(mask, mask),
        )

    @property
    def n_kept(self) -> int:
        """How many positions count."""
        return int(self.keep.sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the shape, the tokens, what is kept of them, where padding is, and the documents."""
        places = self.documents.unique(return_inverse=True)[1]  # in order, whatever they are numbered from
        return checksum([*self._parts(), places.numpy().astype("<i8").tobytes()])

    @property
    def tokens_fingerprint(self) -> str:
        """As `fingerprint`, but for the documents: the same for the same text, whatever intervals resample."""
        return checksum(self._parts())

    def _parts(self) -> Iterator[str | bytes]:
        """What both fingerprints are made of."""
        yield repr(tuple(self.tokens.shape))
        yield self.tokens.numpy().astype("<i8").tobytes()
        yield self.keep.numpy().tobytes()
        if self.attention_mask is not None and not self.attention_mask.all():
            yield self.attention_mask.numpy().tobytes()

    def describe(self) -> dict[str, Any]:
        """What identifies these windows, for a run's record; ready for JSON."""
        shape = {"windows": len(self), "width": self.tokens.shape[1], "kept": self.n_kept}
        return self.provenance | shape | self._fingerprints()

    def _fingerprints(self) -> dict[str, str]:
        return {"fingerprint": self.fingerprint, "tokens_fingerprint": self.tokens_fingerprint}

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, windows: slice | Int64[Tensor, " chosen"]) -> Windows:
        """Some of the windows, checked once; of a slice as a view of the same memory."""
        part = copy.copy(self)
        for name in TENSORS:
            if getattr(self, name) is not None:
                object.__setattr__(part, name, getattr(self, name)[windows])
        return part

    def batches(self, size: int) -> Iterator[Windows]:
        """All windows in order, `size` at a time; the last time those that are left.

        Raises:
            DissectError: `size` is below 1.
        """
        check_whole("the size of a batch", size, 1)
        return (self[start : start + size] for start in range(0, len(self), size))

    def __repr__(self) -> str:
        count, width = self.tokens.shape
        source = "".join(f", {self.provenance[key]}" for key in ("corpus", "split") if key in self.provenance)
        return f"Windows({count} x {width}, {self.n_kept} kept{source}, {self.fingerprint[:8]})"


def load_windows(
    corpus: str | os.PathLike[str],
    model: Any,
    *,
    tokens: int,
    context: int = 512,
    split: str = "train",
    seed: int = 0,
) -> Windows:
    """Windows of a corpus in which exactly `tokens` positions count.

    Documents are packed one after the other, with BOS between them, into windows that each begin with BOS
    (end-of-text where the tokenizer has no BOS). Every position but a window's first counts, until there are
    `tokens`; what is left of the last window is further text, or padding where there is no more.

    Special tokens that a text has written out, as a stored chat may, are read as the characters they are: where there
    are any, `provenance["special_tokens"]` counts the documents that have some. Characters that are not UTF-8 are read
    as U+FFFD, and `provenance["replaced"]` counts them where there are any.

    Args:
        corpus: A name in `CORPORA`, local files or a hub data set, see `dissect.data.corpora.read_documents`.
        model: Its `tokenizer`, `cfg.n_ctx` and `cfg.d_vocab` are used.
        tokens: How many positions count.
        context: Positions in a window; all windows have `tokens + 1` if that is less.
        split: "train" or "test"; they never share a document, whatever the seed.
        seed: Decides which documents, in which order.

    Raises:
        DissectError: The corpus is not known, cannot be read, is no text for more than 1 character in 1,000, or is
            too small (the message says how many tokens
            it has); `context` does not fit the model; the model has no tokenizer, or one that does not fit it.
    """
    _check_request(model, tokens, context)
    check_seed(seed)
    name = as_text_or_path("corpus", corpus)
    bos, width = beginning(model.tokenizer), min(context, tokens + 1)
    tally: Counter[str] = Counter()
    readings: list[Reading] = []
    documents = noted(read_documents(name, split=split, seed=seed, tally=tally), model.tokenizer, readings)
    pieces = _counted(encode(documents, model.tokenizer), tally)
    rows = _collect(pack(pieces, bos, width), tokens, f"{name} {split}")
    used = readings[: tally["last"] + 1]
    check_text(name, used)
    found = sum(len(row.ids) - 1 for row in rows)
    if found < tokens:
        raise DissectError(
            f"corpus {name!r} has {found} tokens in its {split} split, fewer than tokens={tokens}; "
            + (f"ask for at most {found}, or take a larger corpus" if found else "take a larger corpus")
        )
    ids, keep, documents, mask = as_tensors(rows, bos, tokens)
    _check_vocabulary(ids, model)
    request = {"corpus": os.fspath(corpus), "split": split, "seed": seed, "context": context, "tokens": tokens}
    read = {"documents": tally["used"], "empty": tally["empty"], "duplicates": tally["duplicate"], **counts(used)}
    return Windows(ids, keep, request | read, documents, frozenset(reading.digest for reading in used), mask)


def _check_request(model: Any, tokens: int, context: int) -> None:
    """The errors that can be known before anything is read."""
    check_adopted(model)
    if getattr(model, "tokenizer", None) is None:
        raise DissectError(
            f"the model has no tokenizer: its folder has no file called like {', '.join(TOKENIZER_FILES)}; "
            "save one there, or make windows of your own ids with Windows.from_tokens(ids)"
        )
    check_whole("tokens", tokens, 1)
    check_whole("context", context, 2)  # BOS and one token to predict
    if context > model.cfg.n_ctx:
        raise DissectError(
            f"context={context} is more than the {model.cfg.n_ctx} positions of the model (n_ctx); "
            f"give context={model.cfg.n_ctx} or less"
        )


def _counted(pieces: Iterator[Piece], tally: Counter[str]) -> Iterator[Piece]:
    """The same pieces; `tally["used"]` counts the documents they are of, `tally["last"]` is the last one's number."""
    document = None
    for piece in pieces:
        tally["used"] += piece.document != document
        document = tally["last"] = piece.document
        yield piece


def _collect(windows: Iterator[Row], tokens: int, label: str) -> list[Row]:
    """The first windows that together have `tokens` positions after their BOS, or all of them."""
    rows: list[Row] = []
    missing = tokens
    with tqdm(total=tokens, unit="tok", unit_scale=True, desc=label, leave=False, delay=1, disable=hidden()) as bar:
        while missing and (row := next(windows, None)):
            rows.append(row)
            found = min(len(row.ids) - 1, missing)
            missing -= found
            bar.update(found)
    return rows


def _check_vocabulary(ids: Int64[Tensor, "window position"], model: Any) -> None:
    if int(ids.max()) >= model.cfg.d_vocab:
        raise DissectError(
            f"the tokenizer gave token {int(ids.max())}, but the model's vocabulary has {model.cfg.d_vocab} (d_vocab); "
            "load the model with its own tokenizer"
        )


def _check_tokens(tokens: Tensor) -> None:
    check_kind("tokens", tokens, Tensor, "a tensor of token ids, `window position`")
    if tokens.is_meta or tokens.layout != torch.strided:
        raise DissectError(f"tokens must be a plain tensor with values, got {tokens.layout} on {tokens.device}")
    integer = not (tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool)
    if tokens.ndim != 2 or not integer:
        raise DissectError(
            f"tokens must be integers of shape `window position`, got {tokens.dtype} of shape {tuple(tokens.shape)}; "
            "one window is tokens[None]"
        )
    if tokens.shape[0] < 1 or tokens.shape[1] < 2:
        raise DissectError(f"tokens needs at least 1 window of 2 positions, got shape {tuple(tokens.shape)}")
    lowest = int(tokens.to(torch.int64).min())
    if lowest < 0:
        raise DissectError(f"token ids must be 0 or more, got {lowest}; mark padding in `attention_mask` instead")


def _one_a_window(tokens: Tensor) -> Int64[Tensor, "window position"]:
    return torch.arange(len(tokens))[:, None].expand(tokens.shape)


def _in_front(documents: Tensor, tokens: Tensor, mask: Tensor) -> Int64[Tensor, "window position"]:
    check_kind("documents", documents, Tensor, "a tensor of the shape of tokens")
    _check_documents(documents, tokens)
    return to_front(documents.to("cpu", torch.int64), mask)


def _check_documents(documents: Tensor, tokens: Tensor) -> None:
    integer = not (documents.is_floating_point() or documents.is_complex() or documents.dtype == torch.bool)
    if not integer or documents.shape != tokens.shape:
        raise DissectError(
            f"documents must be integers of tokens' shape {tuple(tokens.shape)}, "
            f"got {documents.dtype} of shape {tuple(documents.shape)}; a document a window is the default"
        )
    if int(documents.min()) < 0:
        raise DissectError(f"documents must be numbered from 0 on, got {int(documents.min())}")


def _check_is_bool(keep: Any, tokens: Tensor) -> None:
    check_kind("keep", keep, Tensor, "a bool tensor of tokens' shape")
    if keep.dtype != torch.bool or keep.shape != tokens.shape:
        raise DissectError(
            f"keep must be bool of tokens' shape {tuple(tokens.shape)}, got {keep.dtype} of shape {tuple(keep.shape)}"
        )


def _check_keep(keep: Any, tokens: Tensor) -> None:
    _check_is_bool(keep, tokens)
    if bool(keep[:, 0].any()):
        raise DissectError("keep must be False at position 0, a window's first token, which nothing predicts")
