"""Tables of many runs."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dissect.runs.run import Run, as_runs
from dissect.runs.seeds import by_seed, mean_and_sd
from dissect.runs.summary import percent

if TYPE_CHECKING:
    from pandas import DataFrame


def summary_table(runs: Iterable[Run]) -> DataFrame:
    """A row for each run: its main options, and the numbers of `Run.summary()` in percent (points for the difference).

    `difference low` and `difference high` are the ends of the 95% interval, empty where there is none. Further corpora
    have a column each, empty where a run did not measure it.
    """
    import pandas

    return pandas.DataFrame([_row(run) for run in as_runs(runs)])


def _row(run: Run) -> dict[str, Any]:
    config, summary = run.config, run.summary()
    at = {f"forget drop at {level:.0%}": drop for level, drop in summary.forget_drop_at.items()}
    low, high = summary.interval or (None, None)
    drops = {
        "difference": summary.difference,
        "difference low": low,
        "difference high": high,
        "forget drop": summary.forget_drop,
        "retain drop": summary.retain_drop,
        **at,
        **{f"{name} drop": drop for name, drop in summary.also.items()},
    }
    return {
        "model": config.model,
        "forget": config.forget,
        "retain": config.retain,
        "site": config.site,
        "how": config.importance if config.selector == "score" else config.selector,
        "seed": config.seed,
        "step": summary.step,
        **{name: percent(drop) for name, drop in drops.items()},
    }


def table_2(runs: Iterable[Run]) -> DataFrame:
    """The paper's Table 2: a row for each model and pair of data sets, a column for each site and its random baseline.

    A cell holds the largest difference of accuracy drops in points, of the best importance, and in square brackets the
    retain drop at that step in percent. The difference is followed by its 95% interval, as (52.9 to 63.1), where there
    is one; random runs that differ only in their seed are one: mean ± standard deviation.
    """
    import pandas

    table = pandas.DataFrame([_table_2_cell(group) for group in by_seed(as_runs(runs))])
    best = table.sort_values("difference", ascending=False, kind="stable")
    best = best.drop_duplicates(["model", "forget", "retain", "column"])
    rows = best.pivot(index=["model", "forget", "retain"], columns="column", values="cell")
    return rows.reindex(columns=list(dict.fromkeys(table["column"]))).fillna("")


def _table_2_cell(runs: list[Run]) -> dict[str, Any]:
    """A cell of the table, from one run or from random runs of several seeds, and where it goes."""
    config, summaries = runs[0].config, [run.summary() for run in runs]
    difference, retain = (100 * fmean(getattr(s, name) for s in summaries) for name in ("difference", "retain_drop"))
    spread, interval = "", summaries[0].interval
    if len(runs) > 1:
        spread = f" ± {mean_and_sd([100 * s.difference for s in summaries])[1]:.1f}"
    elif interval is not None:
        spread = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return {
        "model": config.model,
        "forget": config.forget,
        "retain": config.retain,
        "column": config.site if config.selector == "score" else f"{config.site} {config.selector}",
        "difference": difference,
        "cell": f"{difference:.1f}{spread} [{retain:.1f}]",
    }
