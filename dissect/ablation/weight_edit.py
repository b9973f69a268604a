"""Edits of a model's weights that can be undone, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass(eq=False)
class WeightEdit:
    """The handle of an edit in the weights: `restore()` gives back the original weights, bit-identical.

    Several edits of one model are undone in reverse order of their making. A model that was moved or re-typed since
    gets its originals back as if they had been moved and re-typed with it. A deep copy of an edited model is an
    edited model of its own: nothing restores it, unless model and edit are copied together.
    """

    _saved: list[tuple[Tensor, Bool[Tensor, " ..."], Tensor]] = field(default_factory=list)

    def set(self, parameter: Tensor, value: Tensor | float, where: Bool[Tensor, " ..."] | None = None) -> None:
        """Set `parameter` to `value`, everywhere or where `where` is True, and save what was there."""
        where = torch.ones_like(parameter, dtype=torch.bool) if where is None else where
        where = where.to(parameter.device).expand_as(parameter)
        with torch.no_grad():
            self._saved.append((parameter, where, parameter[where].clone()))
            new = torch.as_tensor(value).to(parameter).expand_as(parameter)
            parameter[where] = new[where]

    def restore(self) -> None:
        """Undo everything, the latest first; a second call does nothing, and one that was cut short can be repeated."""
        with torch.no_grad():
            while self._saved:
                parameter, where, original = self._saved[-1]
                parameter[where.to(parameter.device)] = original.to(parameter)
                self._saved.pop()

    @contextmanager
    def or_nothing(self) -> Iterator[None]:
        """Edit inside a `with` block; all that this handle has done is undone if the block ends in an error."""
        try:
            yield
        except BaseException:
            self.restore()
            raise
