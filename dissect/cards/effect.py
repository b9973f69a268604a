"""What ablating one unit alone does to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from dissect.ablation.by_hooks import ablated
from dissect.backend.units import Unit
from dissect.base.checks import check_whole
from dissect.base.progress import hidden
from dissect.cards.contexts import check_kept
from dissect.data.windows import Windows
from dissect.evaluation.evaluate import evaluate
from dissect.scoring.masks import Mask


@dataclass(frozen=True)
class Effect:
    """The mean loss with and without a unit, in nats, over the same predictions.

    Attributes:
        whole: Of the model as it is, without the ablation.
        ablated: With the unit set to zero.
        n: The number of predictions.
    """

    whole: float
    ablated: float
    n: int

    @property
    def change(self) -> float:
        """How much higher the loss is without the unit."""
        return self.ablated - self.whole


def effects(
    model: Any, units: Sequence[Unit], windows: Windows, *, tokens: int, batch_size: int | None, progress: bool
) -> list[Effect | None]:
    """The effect of each unit on the first windows that hold at least `tokens` predictions; None for 0 `tokens`.

    One forward pass over them for each unit, and one for the unpruned model.
    """
    if tokens == 0:
        return [None] * len(units)
    part = first_windows(model, windows, tokens)
    whole = evaluate(model, part, batch_size=batch_size, progress=False)
    found = []
    for unit in tqdm(units, desc="ablating each alone", leave=False, disable=hidden(progress)):
        with ablated(model, Mask.of(model, unit.site, [unit.place])):
            without = evaluate(model, part, batch_size=batch_size, progress=False)
        found.append(Effect(whole["loss"], without["loss"], int(whole["n"])))
    return found


def check_tokens(tokens: Any) -> None:
    """Raise `DissectError` unless `tokens` is a whole number, 0 (nothing is ablated) or more."""
    check_whole("ablation_tokens", tokens, 0)


def first_windows(model: Any, windows: Windows, tokens: int) -> Windows:
    """The fewest windows from the first on that keep at least `tokens` positions; all where they keep fewer.

    Raises:
        DissectError: `tokens` is below 1, or nothing is kept.
    """
    check_whole("tokens", tokens, 1)
    check_kept(model, windows)
    reached = windows.keep.sum(1).cumsum(0) >= min(tokens, windows.n_kept)
    return windows[: int(reached.int().argmax()) + 1]
