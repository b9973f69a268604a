"""What a cut has set to zero in the weights, and holding it there while the rest is trained.

It is found by comparing the weights before and after the cut, so that no table of families is needed: a unit that is
cut leaves whole lines of zeros (rows or columns of a matrix, entries of a bias), wherever its family keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Held:
    """Lines of one weight that stay zero; a bias counts as a matrix of one column.

    Attributes:
        rows: True for lines along the last axis; the weight's shape without it.
        columns: True for lines along the last axis but one; the weight's shape without that.
    """

    rows: Bool[Tensor, " ..."]
    columns: Bool[Tensor, " ..."]

    def __bool__(self) -> bool:
        return bool(self.rows.any() or self.columns.any())

    @property
    def where(self) -> Bool[Tensor, " ..."]:
        """True for every number that is held, in the shape of the weight as a matrix."""
        return self.rows.unsqueeze(-1) | self.columns.unsqueeze(-2)

    def clear_(self, weight: Float[Tensor, " ..."]) -> bool:
        """Set what is held to zero, in place; True where some of it was not."""
        lines, where = as_lines(weight), self.where.to(weight.device)
        changed = bool(lines[where].any())
        lines.masked_fill_(where, 0)
        return changed


def as_lines(weight: Float[Tensor, " ..."]) -> Float[Tensor, " ..."]:
    """A view of a weight that has rows and columns."""
    return weight.unsqueeze(-1) if weight.ndim == 1 else weight


def held_by_cut(before: Any, after: Any) -> dict[str, Held]:
    """What a cut has set to zero, by the name of the weight.

    Args:
        before: The transformers model without the cut.
        after: The same with it.
    """
    old = dict(before.named_parameters())
    found = {name: _gone(as_lines(old[name]), as_lines(new)) for name, new in after.named_parameters()}
    return {name: held for name, held in found.items() if held}


def _gone(old: Float[Tensor, " ..."], new: Float[Tensor, " ..."]) -> Held:
    """Lines that are all zero now and were not before."""
    rows, columns = ((new == 0).all(axis) & (old != 0).any(axis) for axis in (-1, -2))
    return Held(rows, columns)


def clear(weights: Mapping[str, Tensor | None], held: Mapping[str, Held]) -> bool:
    """Set to zero, in place, what is held of some weights (or of their gradients); True where some of it was not."""
    changed = [part.clear_(weight) for name, part in held.items() if (weight := weights.get(name)) is not None]
    return any(changed)
