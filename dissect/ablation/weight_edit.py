"""Edits of a model's weights that can be undone, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dissect.backend.weights import UnitWeights


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Numbers that were replaced: what `tensor` held where `where` is True."""

    tensor: Tensor
    where: Bool[Tensor, " ..."]
    original: Tensor

    def undo(self) -> None:
        self.tensor[self.where.to(self.tensor.device)] = self.original.to(self.tensor)


@dataclass(frozen=True, eq=False)
class _AddedBias:
    """A bias that `linear` got, which had none."""

    linear: Any

    def undo(self) -> None:
        self.linear.bias = None


@dataclass(eq=False)
class WeightEdit:
    """The handle of an edit in the weights: `restore()` gives back the original weights, bit-identical.

    Several edits of one model are undone in reverse order of their making. A model that was moved or re-typed since
    gets its originals back as if they had been moved and re-typed with it. A deep copy of an edited model is an
    edited model of its own: nothing restores it, unless model and edit are copied together.
    """

    _done: list[_Numbers | _AddedBias] = field(default_factory=list)

    def set(self, weight: Tensor, value: Tensor | float, where: Bool[Tensor, " ..."] | None = None) -> None:
        """Set a parameter, or a view of one, to `value`, everywhere or where `where` is True; keep what was there."""
        where = torch.ones_like(weight, dtype=torch.bool) if where is None else where
        where = where.to(weight.device).expand_as(weight)
        with torch.no_grad():
            parameter, at = _in_parameter(weight, where)
            self._done.append(_Numbers(parameter, at, parameter[at].clone()))
            new = torch.as_tensor(value).to(weight).expand_as(weight)
            weight[where] = new[where]

    def add_to_bias(self, weights: UnitWeights, constant: Float[Tensor, " d_model"]) -> None:
        """Add a constant to what a layer's units write, in its output bias; it gets one where it has none."""
        bias = weights.output_bias
        if bias is None:
            self._done.append(_AddedBias(weights.linear))
            bias = torch.nn.Parameter(weights.output.new_zeros(weights.output.shape[-1]), requires_grad=False)
            weights.linear.bias = bias
        self.set(bias, bias + constant.to(bias))

    def restore(self) -> None:
        """Undo everything, the latest first; a second call does nothing, and one that was cut short can be repeated."""
        with torch.no_grad():
            while self._done:
                self._done[-1].undo()
                self._done.pop()

    @contextmanager
    def or_nothing(self) -> Iterator[None]:
        """Edit inside a `with` block; all that this handle has done is undone if the block ends in an error."""
        try:
            yield
        except BaseException:
            self.restore()
            raise


def _in_parameter(weight: Tensor, where: Bool[Tensor, " ..."]) -> tuple[Tensor, Bool[Tensor, " ..."]]:
    """The parameter that `weight` is a view of, and `where` in its shape: a view does not follow when a model moves."""
    parameter = weight._base
    if parameter is None or isinstance(weight, torch.nn.Parameter):
        return weight, where
    shape, stride = parameter.shape, parameter.stride()
    memory = where.new_zeros(1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)))
    start = weight.storage_offset() - parameter.storage_offset()
    memory.as_strided(weight.shape, weight.stride(), start)[where] = True
    return parameter, memory.as_strided(shape, stride).clone()
