"""Random runs that differ in nothing but their seed: one baseline, drawn several times."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from dissect.runs.run import Run


def by_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in order, each by itself, but random ones of the same configuration and other seeds together.

    The seed decides the order of documents too, so that such runs are also measured on other documents.
    """
    groups: dict[object, list[Run]] = {}
    for place, run in enumerate(runs):
        key = replace(run.config, seed=0) if "random" in run.config.selector else place
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the standard deviation over seeds (of a sample: n - 1), at least two."""
    return statistics.fmean(values), statistics.stdev(values)
