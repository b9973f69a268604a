"""How a gradient passes through what is not linear: as it is, or by the rules of RelP.

RelP keeps relevance (activation times gradient) the same from layer to layer, where the plain gradient of a saturated
softmax or a normalized stream vanishes: norms and attention patterns are held constant, an activation function is
replaced by its slope f(x)/x, and each factor of a gate gets half (Rezaei Jafari et al. 2508.21258).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_relevance: ContextVar[bool | None] = ContextVar("dissect.backend.fast.rules", default=None)


@contextmanager
def differentiable(*, relevance: bool = False) -> Iterator[None]:
    """Inside the `with` block the quick pass is taken with gradients too, which have RelP's rules with `relevance`."""
    token = _relevance.set(relevance)
    try:
        yield
    finally:
        _relevance.reset(token)


def is_differentiable() -> bool:
    """True inside `differentiable`."""
    return _relevance.get() is not None


def keeps_relevance() -> bool:
    """True inside `differentiable(relevance=True)`."""
    return bool(_relevance.get())


def held(x: Tensor) -> Tensor:
    """x, without a gradient where RelP holds it constant."""
    return x.detach() if keeps_relevance() else x


def activated(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), whose derivative is its slope function(x) / x under RelP."""
    if not keeps_relevance():
        return function(x)
    y, x_ = function(x.detach()), x.detach()
    slope = torch.where(x_ == 0, 0, y / x_)
    return y + slope * (x - x_)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b, of which each factor gets half the gradient under RelP."""
    if not keeps_relevance():
        return a * b
    return (a * b.detach() + a.detach() * b) / 2
