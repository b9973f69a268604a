"""What was measured of a training: a point for each measurement, and their curve."""

from __future__ import annotations

from dataclasses import dataclass

from dissect.evidence.relearn_config import Arm


@dataclass(frozen=True)
class Point:
    """What a model predicts after some steps.

    Attributes:
        step: How many.
        metrics: By text (`forget`, `retain`, `held_out`) and metric, as `evaluate` gives them.
        intervals: By text, the 95% interval of `top1` over documents; None where the text has fewer than 10.
    """

    step: int
    metrics: dict[str, dict[str, float]]
    intervals: dict[str, tuple[float, float] | None]


@dataclass(frozen=True)
class Curve:
    """One training.

    Attributes:
        arm: What was trained, and how.
        points: What was measured, from before the first step on.
        pushed: True where a gradient of what was held at zero was not zero.
        same_as: The name of a training that this one is equal to, number for number, so that it was not run again: what
            was cut has no gradient, and does not come back where it is free to.
    """

    arm: Arm
    points: tuple[Point, ...]
    pushed: bool = False
    same_as: str | None = None

    def values(self, text: str, metric: str = "top1") -> list[float]:
        """A metric on a text, at each point."""
        return [point.metrics[text][metric] for point in self.points]

    @property
    def steps(self) -> list[int]:
        """The number of steps at each point."""
        return [point.step for point in self.points]
