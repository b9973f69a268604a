"""Many runs side by side: every combination of models, data sets, sites, importances and selectors, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from dissect.checks import as_list, as_path, check_kind
from dissect.errors import DissectError
from dissect.experiments import Grid, all_cells, cell_folder
from dissect.pruning import LastModel, check_config, run_config
from dissect.runs import Run
from dissect.storage import write_text

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


def run_grid(grid: Grid | Sequence[Grid], out: str | Path, *, progress: bool = True) -> GridResult:
    """Run every cell of a grid, or of several, into a folder below `out`; what is finished there is not run again.

    A cell that fails is reported and the others go on.

    Raises:
        DissectError: A name or number of the grid is wrong, before anything is run.
    """
    out = as_path("out", out)
    for each in [grid] if isinstance(grid, Grid) else as_list("grid", grid, "Grids"):
        check_kind("a grid", each, Grid, "a dissect.Grid")
        each.check()
    cells = all_cells(grid, out)
    if not cells:
        raise DissectError("the grid has no run; give each of models, forget, retain, sites and selectors")
    for cell in cells:
        check_config(cell)
    result, models = GridResult(), LastModel()
    for cell in tqdm(cells, desc="grid", unit="run", disable=not progress):
        folder = cell_folder(out, cell)
        try:
            result.runs.append(run_config(cell, load=models, out=folder, progress=progress))
        except DissectError as error:
            result.failures[folder.name] = str(error)
            tqdm.write(f"{folder.name}: {error}")
    if result.runs:
        write_text(out / "summary.csv", summary_table(result.runs).to_csv(index=False))
    return result


def summary_table(runs: list[Run]) -> DataFrame:
    """A row a run: what it was, and the figures of `Run.summary()` in percent (points for the difference)."""
    import pandas

    return pandas.DataFrame([_row(run) for run in runs])


def _row(run: Run) -> dict[str, Any]:
    config, summary = run.config, run.summary()
    at = {f"forget drop at {level:.0%}": drop for level, drop in summary.forget_drop_at.items()}
    drops = {
        "difference": summary.difference,
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
        **{name: None if drop is None else round(100 * drop, 1) for name, drop in drops.items()},
    }


def table_2(runs: list[Run]) -> DataFrame:
    """The paper's Table 2: by model and pair of data sets, for each site the best importance's largest difference
    of accuracy drops in points, with the retain drop at that step in brackets; random runs stand beside."""
    table = summary_table(runs)
    table["column"] = table["site"] + table["how"].where(table["how"].str.contains("random"), "").radd(" ").str.rstrip()
    best = table.sort_values("difference", ascending=False, kind="stable")
    best = best.drop_duplicates(["model", "forget", "retain", "column"])
    best["cell"] = [
        f"{difference:.1f} [{drop:.1f}]"
        for difference, drop in zip(best["difference"], best["retain drop"], strict=True)
    ]
    rows = best.pivot(index=["model", "forget", "retain"], columns="column", values="cell")
    return rows.reindex(columns=list(dict.fromkeys(table["column"]))).fillna("")
