"""Importance: one number per unit per data set, from sufficient statistics alone.

The four functions of the paper (Definition 1, "Dissecting Language Models: Machine Unlearning via Selective
Pruning") and the mean root. To add one, add an entry to `IMPORTANCE`; a new moment goes into `stats.MOMENTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from dissect.base.checks import as_list
from dissect.base.errors import DissectError, look_up
from dissect.scoring.stats import UnitStats


@dataclass(frozen=True)
class Importance:
    """An importance function: the moments it needs and how it is had from them."""

    moments: tuple[str, ...]
    of: Callable[[UnitStats], Float64[Tensor, " layer *unit"]]


def _population_std(stats: UnitStats) -> Float64[Tensor, " layer *unit"]:
    mean = stats["sum"] / stats.count
    # Rounding can leave a constant unit's variance a hair below zero.
    return (stats["sum_sq"] / stats.count - mean**2).clamp(min=0).sqrt()


IMPORTANCE: dict[str, Importance] = {
    "abs": Importance(("sum_abs",), lambda stats: stats["sum_abs"] / stats.count),
    "rms": Importance(("sum_sq",), lambda stats: (stats["sum_sq"] / stats.count).sqrt()),
    "std": Importance(("sum", "sum_sq"), _population_std),
    "freq": Importance(("positive",), lambda stats: stats["positive"] / stats.count),
    "sqrt": Importance(("sum_sqrt",), lambda stats: stats["sum_sqrt"] / stats.count),
}


def get_importance(name: str) -> Importance:
    """The importance called `name`.

    Raises:
        DissectError: There is none; the message lists those there are.
    """
    return look_up("importance", name, IMPORTANCE)


def get_importances(names: str | Iterable[str]) -> list[str]:
    """The names of importances (one or several), without repeats, in the order given.

    Raises:
        DissectError: There is no importance of such a name, or none is given; the message lists those there are.
    """
    listed = [names] if isinstance(names, str) else as_list("importances", names, "names of importances")
    for name in listed:
        get_importance(name)
    if not listed:
        raise DissectError(f"at least one importance must be given; choose from {', '.join(IMPORTANCE)}")
    return list(dict.fromkeys(listed))
