"""Where heads look: mean attention to certain tokens and by distance, of many heads in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from dissect.backend.bridged_pass import patterns_computed
from dissect.backend.finite import not_finite
from dissect.backend.forward import Part
from dissect.backend.hooked_pass import Reader, Reporting, in_parts, read_all
from dissect.backend.sites import PATTERN
from dissect.backend.units import Unit
from dissect.base.errors import DissectError
from dissect.base.ranks import all_reduce_sum_
from dissect.cards.contexts import check_kept
from dissect.data.windows import Windows

DISTANCES = 16


@dataclass(frozen=True)
class Attention:
    """Attention of one head, averaged over the kept positions of a data set; every number is in [0, 1].

    The shares may overlap: at position 1 the previous token is the first one too.

    Attributes:
        n: Number of positions that look.
        itself: To the position itself.
        previous: To the position before.
        first: To the window's first position, mostly BOS.
        same: To earlier positions that hold the same token.
        after_same: To positions right after an earlier one that holds the same token: what an induction head does.
        distances: By distance back, from 0 to 15 positions.
        entropy: Mean entropy of the pattern, in nats; 0 looks at one position only.
    """

    n: int
    itself: float
    previous: float
    first: float
    same: float
    after_same: float
    distances: tuple[float, ...]
    entropy: float


def attentions(
    model: Any, heads: Sequence[Unit], windows: Windows, *, batch_size: int | None, progress: bool
) -> list[Attention]:
    """Where each head looks from the kept positions of `windows`, in one pass.

    Raises:
        DissectError: Nothing is kept, the model has no attention pattern to read, or one is not finite.
    """
    check_kept(model, windows)
    reporting = Reporting("attention", progress)

    def measure(parts: list[Part]) -> Float64[Tensor, "head measure"]:
        sums = torch.zeros(len(heads), 4 + DISTANCES, dtype=torch.float64)
        reached: set[Unit] = set()
        readers = _readers(model, heads, windows, sums, reached)
        with patterns_computed(model):
            read_all(model, windows, parts, readers, counted=windows.keep, reporting=reporting)
        if parts and (missing := set(heads) - reached):
            raise DissectError(
                f"{model.cfg.model_name} computes no attention pattern that {min(missing)} could be read from; "
                "load it with eager attention (attn_implementation='eager')"
            )
        return sums

    # A fourth of the usual windows, since patterns are computed.
    sums = all_reduce_sum_(in_parts(measure, model, windows.keep, batch_size=batch_size, share=4))
    return [_attention(row, windows.n_kept) for row in (sums / windows.n_kept).tolist()]


def _attention(means: list[float], n: int) -> Attention:
    first, same, after_same, entropy, *distances = means
    return Attention(n, distances[0], distances[1], first, same, after_same, tuple(distances), entropy)


def _readers(
    model: Any, heads: Sequence[Unit], windows: Windows, sums: Float64[Tensor, "head measure"], reached: set[Unit]
) -> Iterator[tuple[Any, Reader]]:
    """On the pattern of each head, what adds to its row of `sums`, and the head to those `reached`."""

    def read(row: int, z: Tensor, units: Tensor | None, part: Part) -> None:
        pattern, keep = z[:, heads[row].index[0]].float().cpu(), windows.keep[part]
        # Rows of a pattern sum to one; TransformerLens puts 0 where it is not a number.
        if not (pattern[keep].sum(-1) > 0.5).all():
            raise not_finite(f"the attention of {heads[row]} is not finite")
        reached.add(heads[row])
        sums[row] += _sums(pattern, windows.tokens[part], keep)

    named = model.hook_dict  # a bridge makes it anew at every access
    for row, head in enumerate(heads):
        name = PATTERN.format(layer=head.layer)
        if name not in named:
            raise DissectError(f"head cards need hook point {name!r}, which {model.cfg.model_name!r} does not have")
        yield named[name], partial(read, row)


def _sums(
    pattern: Float[Tensor, "window position key"],
    tokens: Int64[Tensor, "window position"],
    keep: Bool[Tensor, "window position"],
) -> Float[Tensor, " measure"]:
    """Sums over kept positions of: first, same, after same, entropy, then each distance."""
    width = tokens.shape[1]
    place = torch.arange(width)
    back = place[:, None] - place[None, :]
    same = (tokens[:, :, None] == tokens[:, None, :]) & (back > 0)
    after_same = torch.zeros_like(same)
    after_same[:, :, 1:] = same[:, :, :-1]
    rows = [
        pattern[:, :, 0],
        (pattern * same).sum(-1),
        (pattern * after_same).sum(-1),
        torch.special.entr(pattern).sum(-1),
        *((pattern * (back == distance)).sum(-1) for distance in range(DISTANCES)),
    ]
    return torch.stack([row[keep].sum(dtype=torch.float64) for row in rows])
