"""Where heads look: mean attention to certain tokens and by distance, of many heads in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from tqdm.auto import tqdm

from dissect.backend.forward import default_batch_size, run_blocks
from dissect.backend.hooks import Hook, hooked
from dissect.backend.memory import within_memory
from dissect.backend.sites import PATTERN
from dissect.backend.units import Unit
from dissect.base.errors import DissectError
from dissect.base.progress import hidden
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
        after_same: To positions right behind an earlier one that holds the same token: what an induction head does.
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
    shape = windows.tokens.shape
    default = max(1, default_batch_size(model, shape[1]) // 4)  # patterns are kept
    sums = within_memory(lambda size: _summed(model, heads, windows, size, progress), batch_size, default, shape)
    return [_attention(row, windows.n_kept) for row in (sums / windows.n_kept).tolist()]


def _summed(
    model: Any, heads: Sequence[Unit], windows: Windows, size: int, progress: bool
) -> Float64[Tensor, "head measure"]:
    """As `_sums`, of each head over all windows, `size` at a time."""
    sums = torch.zeros(len(heads), 4 + DISTANCES, dtype=torch.float64)
    seen: dict[Unit, Tensor] = {}
    bar = tqdm(
        total=windows.n_kept, unit="tok", unit_scale=True, desc="attention", leave=False, disable=hidden(progress)
    )
    with torch.no_grad(), bar, hooked(_hooks(model, heads, seen)):
        for batch in windows.batches(size):
            run_blocks(model, batch.tokens, batch.attention_mask)
            for row, head in enumerate(heads):
                sums[row] += _sums(_finite(head, seen[head], batch.keep), batch.tokens, batch.keep)
            bar.update(batch.n_kept)
    return sums


def _attention(means: list[float], n: int) -> Attention:
    first, same, after_same, entropy, *distances = means
    return Attention(n, distances[0], distances[1], first, same, after_same, tuple(distances), entropy)


def _hooks(model: Any, heads: Sequence[Unit], seen: dict[Unit, Tensor]) -> Iterator[tuple[Any, Hook]]:
    for layer in sorted({head.layer for head in heads}):
        here = [head for head in heads if head.layer == layer]
        name = PATTERN.format(layer=layer)
        if name not in model.hook_dict:
            raise DissectError(f"head cards need hook point {name!r}, which {model.cfg.model_name!r} does not have")

        def watch(pattern: Tensor, here: list[Unit] = here) -> None:
            for head in here:
                seen[head] = pattern[:, head.index[0]].float().cpu()

        yield model.hook_dict[name], watch


def _finite(
    head: Unit, pattern: Float[Tensor, "window position key"], keep: Bool[Tensor, "window position"]
) -> Float[Tensor, "window position key"]:
    """The pattern, whose rows sum to one; TransformerLens puts 0 where it is not a number."""
    if not (pattern[keep].sum(-1) > 0.5).all():
        raise DissectError(f"the attention of {head} is not finite; load the model with dtype='float32'")
    return pattern


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
