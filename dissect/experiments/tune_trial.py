"""Trials: each ranks once, finds the size of the cut that costs the retain budget, and measures what is lost there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median_low
from typing import Any

from dissect.base.checks import check_positive, check_whole
from dissect.base.errors import DissectError, shown
from dissect.base.progress import say
from dissect.experiments.tune_measure import RESOURCES, Curve, Validation, size_of
from dissect.experiments.tune_space import Settings, Space
from dissect.experiments.tune_statistics import Ranking, Statistics
from dissect.experiments.tune_study import run_trial, was_measured_whole

LAST = len(RESOURCES) - 1
SPREAD = (2, 1, 1)  # how many places apart the two sizes are between which a stage finds the budget


@dataclass(frozen=True)
class Budget:
    """How much is tried, and what retain may lose; the fields are arguments of `tune`."""

    trials: int
    minutes: float | None
    retain_drop: float
    steps: int
    validation_tokens: int

    def check(self) -> None:
        """Raise `DissectError` for a number that no study can have."""
        check_whole("trials", self.trials, 1)
        check_whole("steps", self.steps, 1)
        check_whole("validation_tokens", self.validation_tokens, 1)
        if self.minutes is not None:
            check_positive("minutes", self.minutes)
        check_positive("retain_drop", self.retain_drop)
        if self.retain_drop >= 1:
            raise DissectError(f"retain_drop must be in (0, 1), got {shown(self.retain_drop)} (5% is 0.05)")


@dataclass(frozen=True, eq=False)
class Tuner:
    """What every trial needs.

    Attributes:
        model: The model, unpruned between two measurements.
        space: What is chosen from.
        statistics: Of the train windows, collected once.
        validation: The windows that trials are judged by.
        budget: How much is tried.
        seed: Seed of the sampler.
        study: The trials that have ended.
    """

    model: Any
    space: Space
    statistics: Statistics
    validation: Validation
    budget: Budget
    seed: int
    study: Any

    def curve(self, settings: Settings) -> tuple[Ranking, Curve]:
        """The order in which settings cut units, and what that costs."""
        ranking = self.statistics.rank(settings)
        return ranking, Curve(self.validation, partial(self.statistics.cut, self.model, ranking), ranking.counts)

    def settings_of(self, trial: Any) -> Settings:
        """The settings that a trial was given."""
        return self.space.suggest(_Given(trial.params))

    def is_done(self) -> bool:
        """True where there are as many trials as were asked for, or their time is over."""
        ended, minutes = self.study.trials, self.budget.minutes
        spent = sum(trial.user_attrs["seconds"] for trial in ended)
        return len(ended) >= self.budget.trials or (bool(ended) and minutes is not None and spent >= 60 * minutes)

    def next_trial(self, progress: bool) -> None:
        """Run a trial and keep it."""
        ended = run_trial(self.study, self.seed, self.space.first(), self._begin, RESOURCES)
        if progress:
            say(self._described(ended))

    def _begin(self, trial: Any) -> Callable[[int], float]:
        """What measures a trial at a stage, after that before it."""
        started, level, place = time.perf_counter(), self.budget.retain_drop, self._start()
        _, curve = self.curve(self.space.suggest(trial))

        def measure(stage: int) -> float:
            nonlocal place
            ends = curve.bracket(level, stage, place, SPREAD[stage])
            value, place = curve.forget_drop(level, stage, ends), ends[1]
            point = curve.point(place, stage)
            known = {"place": place, "n": point["n"], "kl": point["kl"]}
            if stage == LAST:
                known["points"] = [curve.point(each, stage) for each in curve.measured(stage)]
            for name, each in (known | {"seconds": round(time.perf_counter() - started, 3)}).items():
                trial.set_user_attr(name, each)
            return value

        return measure

    def _start(self) -> int:
        """The size at which a trial begins to look: where those before it ended, in the middle."""
        return median_low([trial.user_attrs["place"] for trial in self.study.trials] or [0])

    def _described(self, trial: Any) -> str:
        row = self.row(trial)
        words = [row["sites"], row["importance"], row["combine"], row["edit"]]
        whole = "" if was_measured_whole(trial) else ", stopped early"
        budget = self.budget
        return (
            f"trial {trial.number:>3} of 0 to {budget.trials - 1}  forget drop {100 * row['forget_drop']:5.1f}% at "
            f"{100 * budget.retain_drop:g}% retain drop, {row['predictions']:,} predictions{whole}  "
            f"{' '.join(words)}  {row['seconds']:.1f} s"
        )

    def row(self, trial: Any) -> dict[str, Any]:
        """A trial that has ended, for the table."""
        settings, last = self.settings_of(trial), max(trial.intermediate_values)
        shares = {site: f"{site}={share:g}" for site, share in settings.shares.items()}
        return {
            "trial": trial.number,
            "state": trial.state.name,
            "predictions": trial.user_attrs["n"],
            "forget_drop": trial.intermediate_values[last],
            "size": size_of(trial.user_attrs["place"]),
            "sites": ",".join(shares.values()) if len(shares) > 1 else next(iter(shares)),
            "importance": settings.importance,
            "combine": settings.combine,
            "eps": self.statistics.eps(settings),
            "edit": settings.edit,
            "ridge": settings.ridge,
            "first_position": settings.first_position,
            "seconds": trial.user_attrs["seconds"],
        }


@dataclass(frozen=True)
class _Given:
    """Suggests what was suggested before."""

    params: Mapping[str, Any]

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self.params[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self.params[name]
