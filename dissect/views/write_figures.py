"""The paper's figures of a set of runs, each a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from dissect.base.checks import as_path
from dissect.runs.run import Run, as_runs
from dissect.views.compare import compare
from dissect.views.curves import curves
from dissect.views.perplexity import perplexity
from dissect.views.write_page import write_page


def write_figures(runs: Iterable[Run], folder: str | Path) -> list[Path]:
    """Write the paper's Figures 1 to 3 of `runs` into `folder`, as pages that open offline; return their paths.

    Figures 1 and 2 are drawn once for each model and pair of data sets, Figure 3 once for each pair and direction. A
    missing folder is made.

    Raises:
        DissectError: There is no run, a run has no step yet, or a page cannot be written.
    """
    runs = as_runs(runs)
    folder = as_path("folder", folder)
    pages = {"figure_1": (curves, _by_model), "figure_2": (perplexity, _by_model), "figure_3": (compare, _by_data)}
    return [
        write_page([draw(group) for group in _groups(runs, key)], folder / f"{name}.html")
        for name, (draw, key) in pages.items()
    ]


def _by_model(run: Run) -> Hashable:
    return run.config.model, frozenset((run.config.forget, run.config.retain))


def _by_data(run: Run) -> Hashable:
    return run.config.forget, run.config.retain


def _groups(runs: Sequence[Run], key: Callable[[Run], Hashable]) -> list[list[Run]]:
    """The runs grouped by key, in the order in which each key first appears."""
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())
