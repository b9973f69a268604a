"""The command line: one function a command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dissect.checks import check_whole
from dissect.config import PruneConfig
from dissect.errors import DissectError
from dissect.experiments import PAPER_MODELS, Experiment, Grid, all_cells, paper_grids

if TYPE_CHECKING:
    from dissect.cards.heads import HeadCard
    from dissect.cards.neurons import NeuronCard
    from dissect.grid import GridResult
    from dissect.runs import Run

Flag = tyro.conf.arg(aliases=["-o"])
Out = Annotated[Path | None, Flag]


def prune(config: Annotated[PruneConfig, tyro.conf.arg(name="")], out: Out = None) -> None:
    """Prune the units that matter for --forget and not for --retain, step by step, and measure both.

    The same command goes on where it was stopped.

    Args:
        config: What to prune.
        out: Run folder; by default one below runs/ named after the configuration.
    """
    from dissect.pruning import run_config

    run = run_config(config, out=out)
    print_summary([run])
    print(f"\nrun: {run.path}\nsee it: dissect report {run.path}")


def compare(grid: Annotated[Grid, tyro.conf.arg(name="")], out: Annotated[Path, Flag] = Path("runs/grid")) -> None:
    """Run every combination of models, data sets, sites, importances and selectors; print the paper's Table 2.

    A run that is finished in the folder is not run again. Writes summary.csv and the figures beside the runs.

    Args:
        grid: What to combine.
        out: Folder of all runs.
    """
    from dissect.grid import run_grid

    result = run_grid(grid, out)
    _show_grid(result, out, result.runs)


def reproduce(
    what: tyro.conf.Positional[Experiment],
    models: tuple[str, ...] = PAPER_MODELS,
    tokens: int = 100_000,
    steps: int = 50,
    context: int = 1_000,
    offline: bool = False,
    out: Annotated[Path, Flag] = Path("runs/paper"),
) -> None:
    """Run one of the paper's experiments at its own settings: 50 steps of 2%, both directions, both pairs.

    Runs that two experiments share are run once.

    Args:
        what: fig1 (accuracy), fig2 (perplexity), fig3 (sites and importances), table2, or claims (all it compares).
        models: The paper's models, or any others.
        tokens: Predictions for statistics and as many others for evaluation, from each corpus.
        steps: Number of steps of 2%.
        context: Tokens in a window; RoBERTa, which has 512 positions, gets 512.
        offline: Pairs that need no hub: Python against Wikipedia, and C++ against Python.
        out: Folder of all runs.
    """
    from dissect.grid import run_grid

    options = {"tokens": tokens, "steps": steps, "context": context, "offline": offline}
    result = run_grid(paper_grids(what, models, **options), out)
    drawn = result.runs
    if what == "claims":
        _show_claims(drawn, out)
        of_figure_1 = all_cells(paper_grids("fig1", models, **options), out)
        drawn = [run for run in drawn if run.config in of_figure_1]
    _show_grid(result, out, drawn)


def _show_claims(runs: list[Run], out: Path) -> None:
    from dissect.claims import claims_table
    from dissect.storage import write_text

    table = claims_table(runs)
    write_text(out / "claims.csv", table.to_csv(index=False))
    for statement, rows in table.groupby("claim", sort=False):
        print(f"\n{statement}\n{rows.drop(columns='claim').to_string(index=False)}")


def _show_grid(result: GridResult, out: Path, drawn: list[Run]) -> None:
    from dissect.grid import table_2
    from dissect.views import write_figures

    if not result.runs:
        raise DissectError(f"no run of the grid could be finished: {next(iter(result.failures.values()))}")
    print(table_2(result.runs).to_string())
    for path in write_figures(drawn, out):
        print(path)
    if result.failures:
        names = ", ".join(result.failures)
        raise DissectError(f"{len(result.failures)} of {len(result.failures) + len(result.runs)} runs failed: {names}")


def export_command(
    run: tyro.conf.Positional[Path], out: Annotated[Path, Flag], step: int | None = None, shrink: bool = False
) -> None:
    """Write a run's pruned model as a transformers folder that loads without dissect.

    Args:
        run: The run folder.
        out: The folder to write, which must not exist yet.
        step: The step to take; the last one if not given.
        shrink: Drop pruned feed-forward units physically, down to the widest layer's count.
    """
    from dissect.exporting import export
    from dissect.runs import Run

    print(export(Run.load(run), out, step=step, shrink=shrink))


def report(runs: Annotated[tuple[Path, ...], tyro.conf.Positional], cards: int = 0, out: Out = None) -> None:
    """Write one HTML page about one or several runs; it opens offline.

    Args:
        runs: Run folders; the first is the one that is shown layer by layer.
        cards: Show cards of that many units, the highest scores of the first run that has scores; needs its model.
        out: The page; report.html in the first run's folder if not given.
    """
    from dissect.runs import Run
    from dissect.views.report import write_report

    if not runs:
        raise DissectError("a report needs at least one run folder: dissect report RUN [RUN ...]")
    loaded = [Run.load(path) for path in runs]
    print(write_report(loaded, out or runs[0] / "report.html", _cards(loaded, cards)).resolve())


def _cards(runs: list[Run], n: int) -> Sequence[NeuronCard | HeadCard]:
    from dissect.run_cards import top_cards

    check_whole("cards", n, 0)
    if n == 0:
        return ()
    return top_cards(next((run for run in runs if run.has_stats), runs[0]), n)


def demo(out: Annotated[Path, Flag] = Path("runs/demo")) -> None:
    """Prune Python out of SmolLM2-135M while keeping English prose, beside a random baseline; about five minutes.

    Args:
        out: Folder of the two runs and of the page.
    """
    from dissect.demo import run_demo

    runs, page = run_demo(out)
    print_summary(runs)
    print(f"\nthe page: {page.resolve()}")


def models() -> None:
    """List the models known by name, and which of them are on this machine."""
    from dissect.models import known_models

    for model in known_models():
        print(f"{model.name:<16} {'cached' if model.cached else '-':<8} {model.source}")
    print("\nor any hub id (owner/name), or any local transformers folder")


def print_summary(runs: list) -> None:
    """Print the summary table: the paper's Table 2 figure and the operating points."""
    from dissect.views.report import SUMMARY_COLUMNS, summary_rows

    rows = [SUMMARY_COLUMNS, *summary_rows(runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


COMMANDS = {
    "prune": prune,
    "compare": compare,
    "reproduce": reproduce,
    "export": export_command,
    "report": report,
    "models": models,
    "demo": demo,
}


def main(args: list[str] | None = None) -> int:
    """Run the command line; errors of input are one line on standard error and exit status 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="dissect", args=args, description="Which neurons of this language model do that?"
        )
    except DissectError as error:
        print("dissect: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        kept = "interrupted; finished steps are kept, the same command goes on from there"
        print(f"dissect: {stop if str(stop) else kept}", file=sys.stderr)
        return 130
    return 0
