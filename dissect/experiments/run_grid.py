"""Many runs side by side: every combination of models, data sets, sites, importances and selectors, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from dissect.base.checks import as_list, as_path, check_kind
from dissect.base.errors import DissectError
from dissect.base.progress import hidden, say
from dissect.base.ranks import is_main
from dissect.base.storage import write_text
from dissect.experiments.grid import Cluster, Grid, all_cells, cell_folder
from dissect.experiments.on_ray import run_on_cluster
from dissect.runs.config import PruneConfig
from dissect.runs.inputs import LastModel
from dissect.runs.prune import check_config, run_config
from dissect.runs.run import Run, as_runs, percent
from dissect.runs.seeds import by_seed, mean_and_sd

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(eq=False)
class GridResult:
    """Attributes:
    runs: Those that were finished, in the order of the grid's cells.
    failures: What went wrong in the others, by their folder's name.
    """

    runs: list[Run] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def run_grid(
    grid: Grid | Sequence[Grid], out: str | Path, *, cluster: Cluster | None = None, progress: bool = True
) -> GridResult:
    """Run every cell of a grid, or of several, into a folder below `out`; what is finished there is not run again.

    A cell that fails is reported and the others go on. Cells run one after the other, or with `cluster` side by side
    as Ray tasks, into the same folders.

    Raises:
        DissectError: A name or number of the grid is wrong, before anything is run; or there is no such cluster.
    """
    out = as_path("out", out)
    if cluster is not None:
        check_kind("cluster", cluster, Cluster, "a dissect.Cluster")
        cluster.check()
    for each in [grid] if isinstance(grid, Grid) else as_list("grid", grid, "Grids"):
        check_kind("a grid", each, Grid, "a dissect.Grid")
        each.check()
    cells = all_cells(grid, out)
    if not cells:
        raise DissectError("the grid has no run; give each of models, forget, retain, sites and selectors")
    for cell in cells:
        check_config(cell)
    ended = _one_by_one(cells, out, progress) if cluster is None else run_on_cluster(cluster, cells, out)
    outcomes: dict[PruneConfig, Run | str] = {}
    for cell, outcome in tqdm(ended, total=len(cells), desc="grid", unit="run", disable=hidden(progress)):
        outcomes[cell] = outcome
        if isinstance(outcome, str) and is_main():
            say(f"{cell_folder(out, cell).name}: {outcome}")
    result = GridResult()
    for cell in cells:
        outcome = outcomes[cell]
        if isinstance(outcome, str):
            result.failures[cell_folder(out, cell).name] = outcome
        else:
            result.runs.append(outcome)
    if result.runs and is_main():
        write_text(out / "summary.csv", summary_table(result.runs).to_csv(index=False))
    return result


def _one_by_one(cells: list[PruneConfig], out: Path, progress: bool) -> Iterator[tuple[PruneConfig, Run | str]]:
    """Each cell with its run, or with what went wrong in it."""
    models = LastModel()
    for cell in cells:
        try:
            yield cell, run_config(cell, load=models, out=cell_folder(out, cell), progress=progress)
        except DissectError as error:
            yield cell, str(error)


def summary_table(runs: Iterable[Run]) -> DataFrame:
    """A row a run: what it was, and the figures of `Run.summary()` in percent (points for the difference).

    `difference low` and `difference high` are the ends of its 95% interval, empty where it has none.
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
    """The paper's Table 2: by model and pair of data sets, for each site the best importance's largest difference
    of accuracy drops in points, with the retain drop at that step in brackets; random runs stand beside.

    Behind the difference stands its 95% interval, as (52.9 to 63.1), where there is one; random runs that differ in
    their seed alone are one: mean ± standard deviation.
    """
    import pandas

    table = pandas.DataFrame([_table_2_cell(group) for group in by_seed(as_runs(runs))])
    best = table.sort_values("difference", ascending=False, kind="stable")
    best = best.drop_duplicates(["model", "forget", "retain", "column"])
    rows = best.pivot(index=["model", "forget", "retain"], columns="column", values="cell")
    return rows.reindex(columns=list(dict.fromkeys(table["column"]))).fillna("")


def _table_2_cell(runs: list[Run]) -> dict[str, Any]:
    """What one run, or random ones of several seeds, put into the table, and where."""
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
