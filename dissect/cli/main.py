"""The command line: one function a command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dissect.base.checks import as_path, check_whole
from dissect.base.errors import DissectError
from dissect.base.ranks import RankLost, is_main
from dissect.base.streams import lasting, quiet, shows_bars
from dissect.experiments.cost import H100_OPERATIONS, cost_table
from dissect.experiments.grid import Cluster, Grid, all_cells
from dissect.experiments.paper import PAPER_MODELS, Experiment, paper_grids
from dissect.runs.command import typed
from dissect.runs.config import PruneConfig

if TYPE_CHECKING:
    from dissect.cards.heads import HeadCard
    from dissect.cards.neurons import NeuronCard
    from dissect.cards.samples import Samples
    from dissect.experiments.run_grid import GridResult
    from dissect.runs.run import Run

Flag = tyro.conf.arg(aliases=["-o"])
Out = Annotated[Path | None, Flag]


@dataclass(frozen=True)
class OnRay:
    """Runs side by side, with Ray (pip install 'dissect[ray]').

    Attributes:
        ray: Run side by side on this machine, or on the Ray cluster at an address, instead of one by one.
        cpus_per_run: Cores that a run takes with --ray.
        gpus_per_run: GPUs that a run takes with --ray, or a part of one; one where there are any if not given.
    """

    ray: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")] = None
    cpus_per_run: float = 1.0
    gpus_per_run: float | None = None

    def cluster(self) -> Cluster | None:
        """What `run_grid` takes; None without --ray.

        Raises:
            DissectError: More than one address, or numbers that no run can ask for, with --ray or without.
        """
        Cluster(None, self.cpus_per_run, self.gpus_per_run).check()
        if self.ray is None:
            return None
        if len(self.ray) > 1:
            raise DissectError(f"--ray takes one address, got {' '.join(self.ray)}")
        return Cluster(next(iter(self.ray), None), self.cpus_per_run, self.gpus_per_run)


Ray = Annotated[OnRay, tyro.conf.arg(name="")]


def prune(config: Annotated[PruneConfig, tyro.conf.arg(name="")], out: Out = None, n_devices: int = 1) -> None:
    """Prune the units that matter for --forget and not for --retain, step by step, and measure both.

    The same command goes on where it was stopped. On many GPUs or machines: torchrun ... -m dissect prune ...

    Args:
        config: What to prune.
        out: Run folder; by default one below runs/ named after the configuration.
        n_devices: GPUs to spread the layers of the model over, where it is larger than one of them.
    """
    from dissect.runs.inputs import LastModel
    from dissect.runs.prune import run_config

    run = run_config(config, load=LastModel(n_devices), out=out)
    if is_main():
        print_summary([run])
        print(f"\nrun: {run.path}\nsee it: dissect report {run.path}")


def compare(
    grid: Annotated[Grid, tyro.conf.arg(name="")],
    out: Annotated[Path, Flag] = Path("runs/grid"),
    on: Ray = OnRay(),
) -> None:
    """Run every combination of models, data sets, sites, importances and selectors; print the paper's Table 2.

    A run that is finished in the folder is not run again. Writes summary.csv and the figures beside the runs.

    Args:
        grid: What to combine.
        out: Folder of all runs.
        on: Where they run.
    """
    from dissect.experiments.run_grid import run_grid

    out = as_path("out", out)
    result = run_grid(grid, out, cluster=on.cluster())
    if is_main():
        _show_grid(result, out, result.runs)


def reproduce(
    what: tyro.conf.Positional[Experiment],
    models: tuple[str, ...] = PAPER_MODELS,
    tokens: int = 100_000,
    steps: int = 50,
    first_position: bool = False,
    context: int = 1_000,
    offline: bool = False,
    out: Annotated[Path, Flag] = Path("runs/paper"),
    on: Ray = OnRay(),
) -> None:
    """Run one of the paper's experiments at its own settings: 50 steps of 2%, both directions, both pairs.

    Runs that two experiments share are run once.

    Args:
        what: fig1 (accuracy), fig2 (perplexity), fig3 (sites and importances), table2, or claims (all it compares).
        models: The paper's models, or any others.
        tokens: Predictions for statistics and as many others for evaluation, from each corpus.
        steps: Number of steps of 2%.
        first_position: Statistics also count the first position of each window, as the authors' own code does.
        context: Tokens in a window; RoBERTa, which has 512 positions, gets 512.
        offline: Pairs that need no hub: Python against Wikipedia, and C++ against Python.
        out: Folder of all runs.
        on: Where they run.
    """
    from dissect.experiments.run_grid import run_grid

    out = as_path("out", out)
    options = {
        "tokens": tokens,
        "steps": steps,
        "first_position": first_position,
        "context": context,
        "offline": offline,
    }
    result = run_grid(paper_grids(what, models, **options), out, cluster=on.cluster())
    if not is_main():
        return
    _check_any(result)
    drawn, claims = result.runs, ""
    if what == "claims":
        claims = _write_claims(drawn, out)
        of_figure_1 = all_cells(paper_grids("fig1", models, **options), out)
        drawn = [run for run in drawn if run.config in of_figure_1]
    _show_grid(result, out, drawn, above=claims)


def cost(
    what: tyro.conf.Positional[tuple[Experiment, ...]] = ("fig1", "fig3", "claims"),
    models: tuple[str, ...] = PAPER_MODELS,
    tokens: int = 100_000,
    steps: int = 50,
    context: int = 1_000,
    gpus: tuple[int, ...] = (1, 8, 64),
    operations_per_second: float = H100_OPERATIONS,
) -> None:
    """Calculate what the paper's experiments cost: operations, counted, and hours at an assumed rate; runs nothing.

    Args:
        what: The experiments; runs that they share count once.
        models: The paper's models, or smollm2-135m.
        tokens: As for reproduce.
        steps: As for reproduce.
        context: As for reproduce.
        gpus: Numbers of GPUs to show hours for.
        operations_per_second: Of one GPU, in matrix products; by default 40% of an H100's dense bfloat16 peak.
    """
    grids = [grid for name in what for grid in paper_grids(name, models, tokens=tokens, steps=steps, context=context)]
    table = cost_table(all_cells(grids, Path()), gpus, operations_per_second)
    print(table.to_string(index=False, na_rep=""))
    print(f"\ncalculated, not measured: at {operations_per_second:.3g} operations a second and GPU")


def _write_claims(runs: list[Run], out: Path) -> str:
    """Write the table of claims; gives what is printed of it."""
    from dissect.base.storage import write_text
    from dissect.experiments.claims import claims_table

    table = claims_table(runs)
    write_text(out / "claims.csv", table.to_csv(index=False))
    groups = table.groupby("claim", sort=False)
    return "".join(f"\n{claim}\n{rows.drop(columns='claim').to_string(index=False)}\n" for claim, rows in groups)


def _show_grid(result: GridResult, out: Path, drawn: list[Run], above: str = "") -> None:
    """Write the figures of `drawn`, then print all tables."""
    from dissect.experiments.tables import table_2
    from dissect.views import write_figures

    _check_any(result)
    pages = write_figures(drawn, out) if drawn else []
    print("\n".join([above + table_2(result.runs).to_string(), *map(str, pages)]))
    if result.failures:
        names = ", ".join(result.failures)
        raise DissectError(f"{len(result.failures)} of {len(result.failures) + len(result.runs)} runs failed: {names}")


def _check_any(result: GridResult) -> None:
    if not result.runs:
        raise DissectError(f"no run of the grid could be finished: {next(iter(result.failures.values()))}")


def export_command(
    run: tyro.conf.Positional[Path], out: Annotated[Path, Flag], step: int | None = None, shrink: bool = False
) -> None:
    """Write a run's pruned model as a transformers folder that loads without dissect.

    Args:
        run: The run folder.
        out: The folder to write, which must be empty where it exists already.
        step: The step to take; the last one if not given.
        shrink: Drop pruned feed-forward units physically, down to the widest layer's count.
    """
    from dissect.runs.export import export
    from dissect.runs.run import Run

    print(export(Run.load(run), out, step=step, shrink=shrink))


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], cards: int = 0, samples: int = 0, out: Out = None
) -> None:
    """Write one HTML page about one or several runs; it opens offline.

    Args:
        runs: Run folders; the first is shown layer by layer, the first that has scores also unit by unit.
        cards: Show cards of that many units, the highest scores of the first run that has scores; needs its model.
        samples: Show how the first run's model goes on with that many test documents of each side, unpruned and pruned
            up to the step that the page begins with; needs its model.
        out: The page; report.html in the first run's folder if not given.
    """
    from dissect.runs.run import Run
    from dissect.views.write_report import write_report

    if not runs:
        raise DissectError("a report needs at least one run folder: dissect report RUN [RUN ...]")
    loaded = [Run.load(path) for path in runs]
    check_whole("cards", cards, 0)
    check_whole("samples", samples, 0)
    page = out or runs[0] / "report.html"
    print(write_report(loaded, page, _cards(loaded, cards), samples=_samples(loaded, samples)).resolve())


def _cards(runs: list[Run], n: int) -> Sequence[NeuronCard | HeadCard]:
    from dissect.cards.of_run import top_cards
    from dissect.views.write_report import scored_run

    return top_cards(scored_run(runs), n) if n else ()


def _samples(runs: list[Run], n: int) -> Samples | None:
    from dissect.cards.samples import run_samples

    return run_samples(runs[0], n) if n else None


def rerun(run: tyro.conf.Positional[Path], out: Out = None, device: str | None = None) -> int:
    """Repeat a run from its record and compare: bit for bit on the same machine, within tolerance elsewhere.

    Names the first difference. Exit status 0 if the two are the same, 1 if they differ.

    Args:
        run: The run folder.
        out: The folder of the repetition; the run's with -rerun behind its name if not given.
        device: cpu, cuda, ...; as the run was asked for if not given.
    """
    from dissect.runs.rerun import rerun

    result = rerun(run, out=out, device=device)
    print(f"\n{result}")
    return 0 if result.same else 1


def stability(
    model: str,
    forget: str,
    retain: str,
    sites: tuple[str, ...] = ("mlp", "value", "pre_out"),
    importances: tuple[str, ...] = ("abs", "rms", "std"),
    fraction: float = 0.02,
    tokens: int = 20_000,
    context: int = 256,
    splits: int = 5,
    seed: int = 0,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    out: Annotated[Path, Flag] = Path("runs/stability"),
) -> None:
    """Measure how many predictions are enough: do masks chosen by two halves of the text agree?

    Prints the Jaccard index of the two against the number of predictions, and from which number on it is high enough.
    Writes stability.csv and stability.html.

    Args:
        model: A known name (`dissect models`), a hub id or a local transformers folder.
        forget: The corpus whose units are to go.
        retain: The corpus whose units are to stay.
        sites: mlp, value, pre_out, head.
        importances: abs, rms, std, freq, sqrt.
        fraction: How many units a mask takes, as a part of all units of its site.
        tokens: Predictions of each corpus, for both halves together.
        context: Tokens in a window.
        splits: How often the text is dealt to two halves.
        seed: Of the order of documents and of the splits.
        dtype: bfloat16, float16 or float32; bfloat16 where the machine has it if not given.
        device: cpu, cuda, ...; the best there is if not given.
        batch_size: Windows in a forward pass; about 2,048 tokens if not given.
        out: Folder of the table and the page.
    """
    from dissect.base.storage import locked, write_text
    from dissect.experiments.stability import stability
    from dissect.views import write_page

    out = as_path("out", out)
    with locked(out):
        result = stability(
            model,
            forget=forget,
            retain=retain,
            sites=sites,
            importances=importances,
            fraction=fraction,
            tokens=tokens,
            context=context,
            splits=splits,
            seed=seed,
            dtype=dtype,
            device=device,
            batch_size=batch_size,
        )
        write_text(out / "stability.csv", result.table.to_csv(index=False))
        print(f"\n{result}\n\n{write_page([result.figure()], out / 'stability.html')}")


def demo(out: Annotated[Path, Flag] = Path("runs/demo")) -> None:
    """Prune Python out of SmolLM2-135M while keeping English prose, beside a random baseline; about five minutes.

    Args:
        out: Folder of the two runs and of the page.
    """
    from dissect.cli.demo import run_demo

    runs, page = run_demo(as_path("out", out))
    print_summary(runs)
    print(f"\nthe page: {page.resolve()}")


def models() -> None:
    """List the models known by name, and which of them are on this machine."""
    from dissect.models.load import known_models

    for model in known_models():
        print(f"{model.name:<16} {'cached' if model.cached else '-':<8} {model.source}")
    print("\nor any hub id (owner/name), or any local transformers folder")


def print_summary(runs: list) -> None:
    """Print the summary table: the paper's Table 2 figure and the operating points."""
    from dissect.runs.tables import SUMMARY_COLUMNS, summary_rows

    rows = [SUMMARY_COLUMNS, *summary_rows(runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


COMMANDS = {
    "prune": prune,
    "compare": compare,
    "reproduce": reproduce,
    "cost": cost,
    "export": export_command,
    "report": report,
    "rerun": rerun,
    "stability": stability,
    "models": models,
    "demo": demo,
}


def main(args: list[str] | None = None) -> int:
    """Run the command line; errors of input are one line on standard error and exit status 2.

    Exit status 1 is a command's own: what it was asked is not so (`rerun`); or another rank was lost, or what was
    printed, other than by a reader that went away.
    """
    with lasting() as lost, nullcontext() if _has_bars() else quiet():
        status = _run(args)
    if "stdout" in lost:
        with lasting():
            _complain(
                f"error: what was to be printed is lost ({lost['stdout'].strerror}); files are written all the same"
            )
    return status or int("stdout" in lost)


def _has_bars() -> bool:
    """Bars are for the main rank, and for a terminal or a notebook."""
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    return shows_bars(sys.stderr) and not (under_torchrun and os.environ.get("RANK") != "0")


def _run(args: list[str] | None) -> int:
    _behave_under_torchrun()
    try:
        with typed(["dissect", *(sys.argv[1:] if args is None else args)]):
            status = tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="dissect", args=args, description="Which neurons of this language model do that?"
            )
    except DissectError as error:
        _complain("error: " + " ".join(str(error).split()))
        return 2
    except RankLost as error:
        _complain(f"error: rank {os.environ['RANK']}: {error}", everybody=True)
        return 1
    except KeyboardInterrupt as stop:
        kept = "interrupted; finished steps are kept, the same command goes on from there"
        _complain(str(stop) or kept)
        return 130
    return status or 0


def _behave_under_torchrun() -> None:
    """torchrun's own signal stops as Ctrl-C does."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _complain(message: str, *, everybody: bool = False) -> None:
    if everybody or is_main():
        print(f"dissect: {message}", file=sys.stderr, flush=True)
