"""A run's result: drops relative to the unpruned model, and the paper's Table 2 figure."""

from __future__ import annotations

from dataclasses import dataclass, field

from dissect.evaluation.intervals import Interval

LEVELS = (0.05, 0.20)  # retain drops at which the forget drop is reported


def relative_drop(value: float, base: float) -> float:
    """1 - value / base; 0 where there was nothing to lose."""
    return 1 - value / base if base else 0.0


@dataclass(frozen=True)
class Summary:
    """A run's result, in relative drops of top-1 accuracy (1 = all of it).

    Attributes:
        difference: The largest forget drop minus retain drop of any step: the paper's Table 2 figure.
        step: The step it is reached at.
        forget_drop: The forget drop there.
        retain_drop: The retain drop there.
        forget_drop_at: The forget drop where the retain drop first reaches a level, between two steps on a
            straight line; None where it never does.
        interval: The 95% interval of the difference at that step, over other documents of the same kind; None where
            a side has too few documents for one.
        forget_interval: That of the forget drop there.
        retain_interval: That of the retain drop there.
        also: The drop of each further corpus there, by name.
        also_intervals: The intervals of these.
    """

    difference: float
    step: int
    forget_drop: float
    retain_drop: float
    forget_drop_at: dict[float, float | None]
    interval: Interval = None
    forget_interval: Interval = None
    retain_interval: Interval = None
    also: dict[str, float] = field(default_factory=dict)
    also_intervals: dict[str, Interval] = field(default_factory=dict)


def percent(part: float | None) -> float | None:
    """A fraction in percent, to a tenth; None for None."""
    return None if part is None else round(100 * part, 1)


def drop_at(forget: list[float], retain: list[float], level: float) -> float | None:
    """The forget drop where the retain drop first reaches `level`, on the straight line between two steps."""
    for k in range(1, len(retain)):
        if retain[k] >= level:
            part = (level - retain[k - 1]) / (retain[k] - retain[k - 1])
            return forget[k - 1] + part * (forget[k] - forget[k - 1])
    return None
