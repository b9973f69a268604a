"""Measuring choices: the whole model once, then a pruned one each time; its hooks are gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from dissect.ablation.by_hooks import ablated
from dissect.data.windows import Windows
from dissect.evaluation.documents import DocumentSums
from dissect.evaluation.evaluate import evaluate_documents
from dissect.evaluation.intervals import intervals
from dissect.explorer.choice import Choice, Evidence, Settings
from dissect.explorer.contents import contents
from dissect.runs.run import SIDES
from dissect.runs.summary import Interval, relative_drop

Tick = Callable[[float], None]
"""Called with the part that is done, in [0, 1]."""


@dataclass(frozen=True)
class Point:
    """A choice that was measured.

    Attributes:
        settings: What chose the units.
        units: How many were pruned.
        total: How many there are at the site.
        forget: Metrics of the pruned model on the forget data set, as `evaluate` gives them.
        retain: Likewise on the retain data set.
        forget_drop: Relative drop of top-1 accuracy there, 1 - accuracy / whole model's accuracy.
        retain_drop: Likewise on the retain data set.
        forget_interval: The 95% interval of the forget drop, from other documents of the same kind; None where the
            data set has too few documents for one (`dissect.evaluation.intervals`).
        retain_interval: Likewise of the retain drop.
        contents: What the model was when it was measured (`contents`), before the choice was pruned.
    """

    settings: Settings
    units: int
    total: int
    forget: Mapping[str, float]
    retain: Mapping[str, float]
    forget_drop: float
    retain_drop: float
    forget_interval: Interval = None
    retain_interval: Interval = None
    contents: str = ""

    @property
    def difference(self) -> float:
        """Forget drop minus retain drop."""
        return self.forget_drop - self.retain_drop


@dataclass(eq=False)
class Bench:
    """Where choices are measured.

    Attributes:
        model: The model; left as it was after every measurement.
        evidence: Statistics, for the means of mean ablation.
        windows: What is predicted, by side.
        batch_size: Windows in a forward pass; by default about 2,048 tokens on a CPU, more on a GPU.
        opened: What the model was when the bench was made.
        now: What it was when something was last measured or tried.
        bases: What the whole model predicts by side, document by document, for each contents that it had.
        points: What was measured, in order, of whatever contents.
    """

    model: Any
    evidence: Evidence
    windows: Mapping[str, Windows]
    batch_size: int | None = None
    opened: str = field(init=False)
    now: str = field(init=False)
    bases: dict[str, dict[str, DocumentSums]] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)

    def __post_init__(self):
        self.opened = self.now = contents(self.model)

    @property
    def base(self) -> dict[str, DocumentSums]:
        """What the model of `now` predicts as a whole by side, as far as it is known."""
        return self.bases.setdefault(self.now, {})

    @property
    def whole(self) -> dict[str, dict[str, float]]:
        """Metrics of the whole model of `now` by side, once they are known."""
        return {side: sums.metrics() for side, sums in self.base.items()}

    def measure(self, choice: Choice, tick: Tick = lambda part: None) -> Point:
        """Evaluate the pruned model on both sides and keep the point; the same is measured once.

        The same are the same settings, of a model of the same contents.
        """
        self.look()
        known = next((point for point in self.current if point.settings == choice.settings), None)
        if known is not None:
            return known
        todo = [side for side in SIDES if side not in self.base]
        count = _parts(tick, self._n_windows(todo) + self._n_windows(SIDES))
        for side in todo:
            self.base[side] = self._evaluate(side, count)
        with self.pruned(choice):
            found = {side: self._evaluate(side, count) for side in SIDES}
        point = self._point(choice, found)
        self.points.append(point)
        return point

    def look(self) -> None:
        """See what the model is now."""
        self.now = contents(self.model)

    @property
    def current(self) -> list[Point]:
        """The points of the model of `now`."""
        return [point for point in self.points if point.contents == self.now]

    def pruned(self, choice: Choice) -> AbstractContextManager[None]:
        """The model without the chosen units, inside a `with` block."""
        _, keep = self.evidence.roles(choice.settings.direction)
        stats = keep if choice.settings.value == "mean" else None
        return ablated(self.model, choice.mask, value=choice.settings.value, stats=stats)

    def _evaluate(self, side: str, count: Callable[[int], None]) -> DocumentSums:
        options = {"batch_size": self.batch_size, "progress": False, "tick": count}
        return evaluate_documents(self.model, self.windows[side], **options)

    def _n_windows(self, sides: list[str] | tuple[str, ...]) -> int:
        return sum(len(self.windows[side]) for side in sides)

    def _point(self, choice: Choice, found: dict[str, DocumentSums]) -> Point:
        metrics, whole = {side: sums.metrics() for side, sums in found.items()}, self.whole
        forget_drop, retain_drop = (relative_drop(metrics[side]["top1"], whole[side]["top1"]) for side in SIDES)
        ends = intervals(found, self.base)
        forget_interval, retain_interval = (tuple(ends[side]["drop"]) if ends[side] else None for side in SIDES)
        return Point(
            choice.settings,
            len(choice.mask),
            choice.mask.total,
            metrics["forget"],
            metrics["retain"],
            forget_drop,
            retain_drop,
            forget_interval,
            retain_interval,
            self.now,
        )


def _parts(tick: Tick, total: int) -> Callable[[int], None]:
    """A counter that says which part of `total` windows have come."""
    done = 0

    def count(windows: int) -> None:
        nonlocal done
        done += windows
        tick(min(1.0, done / total))

    return count
