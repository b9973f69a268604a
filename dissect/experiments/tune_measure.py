"""What a cut costs on validation windows: more of them the further a trial gets, and each measured once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from dissect.data.windows import Windows
from dissect.evaluation.evaluate import Reference, evaluate_documents, reference_of
from dissect.runs.summary import drop_at, relative_drop

RESOURCES = (1, 3, 9)  # ninths of the validation windows that the stages of a trial see
LARGEST, SMALLEST = 0.99, 1e-4  # of sizes, as fractions of the first site's units

Sums = tuple[float, float, float]  # right predictions, divergence, predictions
Cut = Callable[[float], AbstractContextManager[Any]]


def size_of(place: int) -> float:
    """Sizes lie at half powers of 2, as fractions; 2% is at place 0."""
    return 0.02 * 2 ** (place / 2)


@dataclass(frozen=True, eq=False)
class Validation:
    """The validation windows of both sides in three parts: the first ninth, the rest of the first third, the rest.

    Attributes:
        model: The model.
        windows: By side.
        seed: Decides which tokens a masked model predicts.
        batch_size: Windows in a forward pass.
    """

    model: Any
    windows: Mapping[str, Windows]
    seed: int
    batch_size: int | None
    _base: dict[tuple[str, int], tuple[Sums, Reference | None]] = field(default_factory=dict, init=False)

    def base(self, side: str, part: int) -> tuple[Sums, Reference | None]:
        """What the unpruned model predicts of a part, measured once; of retain with a reference."""
        if (side, part) not in self._base:
            how: dict[str, Any] = {"seed": self.seed, "batch_size": self.batch_size}
            windows, reference = self.part(side, part), None
            if side == "retain":
                reference = reference_of(self.model, windows, **how)
            self._base[side, part] = _sums(evaluate_documents(self.model, windows, progress=False, **how)), reference
        return self._base[side, part]

    def measure(self, side: str, part: int, cut: AbstractContextManager[Any]) -> Sums:
        """What the cut model predicts of a part."""
        windows, reference = self.part(side, part), self.base(side, part)[1]
        with cut:
            found = evaluate_documents(
                self.model,
                windows,
                reference=reference,
                seed=self.seed,
                batch_size=self.batch_size,
                progress=False,
            )
        return _sums(found)

    def part(self, side: str, part: int) -> Windows:
        """The windows of a part."""
        windows = self.windows[side]
        count = len(windows)
        ends = (0, max(1, count // 9), max(2, count // 3), count)
        return windows[ends[part] : ends[part + 1]]


def _sums(found: Any) -> Sums:
    metrics = found.metrics()
    n = metrics["n"]
    return metrics["top1"] * n, metrics.get("kl", 0.0) * n, n


@dataclass(frozen=True, eq=False)
class Curve:
    """What the cuts of one trial cost, at the sizes that were asked for.

    Attributes:
        validation: What they are measured on.
        cut: The model cut to a size.
        counts: How many units that is, by site.
    """

    validation: Validation
    cut: Cut
    counts: Callable[[float], Mapping[str, int]]
    _found: dict[tuple[int, str, int], Sums] = field(default_factory=dict, init=False)

    def drop(self, place: int, side: str, stage: int) -> float:
        """The relative drop of top-1 accuracy, over the windows of a stage."""
        now, base = self._totals(place, side, stage)
        return relative_drop(now[0] / now[2], base[0] / base[2])

    def point(self, place: int, stage: int) -> dict[str, Any]:
        """All that is known of a size, both sides measured."""
        retain, _ = self._totals(place, "retain", stage)
        units = sum(self.counts(size_of(place)).values())
        drops = {f"{side}_drop": self.drop(place, side, stage) for side in ("forget", "retain")}
        return {"size": size_of(place), "units": units, **drops, "kl": retain[1] / retain[2], "n": int(retain[2])}

    def bracket(self, level: float, stage: int, start: int, stride: int) -> tuple[int | None, int]:
        """Two sizes, `stride` places apart, between which the retain drop reaches `level`.

        The first is None where even the smallest cut reaches it; the second does not reach it where none does.
        """
        place = start
        while self.drop(place, "retain", stage) < level:
            if size_of(place + stride) > LARGEST:
                return place - stride, place
            place += stride
        while not self._is_smallest(place, stride):
            if self.drop(place - stride, "retain", stage) < level:
                return place - stride, place
            place -= stride
        return None, place

    def forget_drop(self, level: float, stage: int, ends: tuple[int | None, int]) -> float:
        """The forget drop where the retain drop reaches `level`, on the straight line between two sizes."""
        places = [place for place in ends if place is not None]
        forget, retain = ([self.drop(place, side, stage) for place in places] for side in ("forget", "retain"))
        if ends[0] is None:
            forget, retain = [0.0, *forget], [0.0, *retain]
        found = drop_at(forget, retain, level)
        return forget[-1] if found is None else found

    def measured(self, stage: int) -> list[int]:
        """The places of which both sides are measured over the windows of a stage, in order."""
        found = {place for place, _, _ in self._found}
        wanted = [(side, part) for side in ("forget", "retain") for part in range(stage + 1)]
        return sorted(place for place in found if all((place, *each) in self._found for each in wanted))

    def _is_smallest(self, place: int, stride: int) -> bool:
        size, smaller = size_of(place), size_of(place - stride)
        return smaller < SMALLEST or self.counts(smaller) == self.counts(size)

    def _totals(self, place: int, side: str, stage: int) -> tuple[Sums, Sums]:
        """The sums of the cut and of the unpruned model over the windows of a stage."""
        parts = range(stage + 1)
        for part in parts:
            if (place, side, part) not in self._found:
                found = self.validation.measure(side, part, self.cut(size_of(place)))
                self._found[place, side, part] = found
        now = [self._found[place, side, part] for part in parts]
        return _added(now), _added([self.validation.base(side, part)[0] for part in parts])


def _added(sums: list[Sums]) -> Sums:
    right, divergence, count = (sum(each) for each in zip(*sums, strict=True))
    return right, divergence, count
