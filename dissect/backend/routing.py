"""Activations of experts as rows: one for each position that was routed to an expert, none where all are zero."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Routing:
    """Which expert and which position each row is of. What has no row was not routed: its activations are zero.

    Attributes:
        expert: The expert of each row, in ascending order.
        place: The position of each row, counted through all windows of the batch.
        shape: Windows, positions and experts of the batch.
    """

    expert: Int64[Tensor, " row"]
    place: Int64[Tensor, " row"]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, mass: Float[Tensor, "window position expert"]) -> Routing:
        """The routing of a batch: a row wherever an expert has a weight."""
        expert, place = (mass.flatten(0, 1) != 0).mT.nonzero(as_tuple=True)
        windows, positions, experts = mass.shape
        return cls(expert, place, (windows, positions, experts))

    def by_expert(self, rows: Shaped[Tensor, " row *unit"]) -> Iterator[tuple[int, Shaped[Tensor, " part *unit"]]]:
        """The rows of each expert that has any."""
        counts = torch.bincount(self.expert, minlength=self.shape[-1]).tolist()
        return ((expert, part) for expert, part in enumerate(rows.split(counts)) if len(part))

    def at_rows(self, values: Shaped[Tensor, " expert *unit"]) -> Shaped[Tensor, " row *unit"]:
        """A mask or values of all units, for each row."""
        return values[self.expert.to(values.device)]

    def kept(
        self, rows: Shaped[Tensor, " row *unit"], keep: Bool[Tensor, "window position"]
    ) -> tuple[Shaped[Tensor, " kept *unit"], Routing]:
        """The rows of the positions where `keep`, and their routing."""
        chosen = keep.flatten().to(rows.device)[self.place]
        return rows[chosen], Routing(self.expert[chosen], self.place[chosen], self.shape)

    def rows_of(self, window: int, expert: int) -> Bool[Tensor, " row"]:
        """True for the rows of an expert in one window."""
        return (self.expert == expert) & (self.place // self.shape[1] == window)

    def dense(self, rows: Float[Tensor, "row unit"]) -> Float[Tensor, "window position expert unit"]:
        """The activations of all units at every position, of a small batch."""
        windows, positions, experts = self.shape
        found = rows.new_zeros(windows * positions, experts, rows.shape[1])
        found[self.place, self.expert] = rows
        return found.unflatten(0, (windows, positions))

    def of_unit(self, rows: Float[Tensor, "row unit"], expert: int, unit: int) -> Float[Tensor, "window position"]:
        """The activations of one unit at every position, zero where its expert was not routed to."""
        mine = self.expert == expert
        dense = rows.new_zeros(self.shape[0] * self.shape[1])
        dense[self.place[mine]] = rows[mine, unit]
        return dense.unflatten(0, self.shape[:2])


# TransformerLens hands a hook the point it was added to, which in a deep copy of a model is still the original's. So
# what a hook has to know of the rows is not on the point.
_current: ContextVar[Routing | None] = ContextVar("routing", default=None)


def current_routing() -> Routing | None:
    """The routing of the rows that hooks are being called with; None where activations are not rows."""
    return _current.get()


@contextmanager
def rows_routed(routing: Routing) -> Iterator[None]:
    """Hooks that are called inside the `with` block get rows."""
    before = _current.set(routing)
    try:
        yield
    finally:
        _current.reset(before)


def as_activations(values: Shaped[Tensor, "*unit"]) -> Shaped[Tensor, " ..."]:
    """A mask or values of a layer's units, for the activations that hooks are being called with."""
    routing = current_routing()
    return values if routing is None else routing.at_rows(values)
