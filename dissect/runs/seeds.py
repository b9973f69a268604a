"""Runs that differ in nothing but their seed: one baseline drawn several times, or one method on several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Sequence
from dataclasses import replace

from dissect.runs.run import Run


def by_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in order, each by itself, but random ones of the same configuration and other seeds together.

    The seed decides the order of documents too, so that such runs are also measured on other documents.
    """
    return _grouped([replace(run.config, seed=0) if _is_random(run) else place for place, run in enumerate(runs)], runs)


def by_method(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in order, all of the same configuration and other seeds together, random or not."""
    return _grouped([replace(run.config, seed=0) for run in runs], runs)


def _is_random(run: Run) -> bool:
    return "random" in run.config.selector


def _grouped(keys: Sequence[Hashable], runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[Hashable, list[Run]] = {}
    for key, run in zip(keys, runs, strict=True):
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the standard deviation over seeds (of a sample: n - 1), at least two."""
    return statistics.fmean(values), statistics.stdev(values)
