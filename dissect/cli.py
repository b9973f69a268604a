"""The command line: `dissect prune`, `demo`, `report`, `models`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from dissect.config import PruneConfig
from dissect.errors import DissectError

Out = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]


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


def report(runs: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Out = None) -> None:
    """Write one HTML page about one or several runs; it opens offline.

    Args:
        runs: Run folders; the first is the one that is shown layer by layer.
        out: The page; report.html in the first run's folder if not given.
    """
    from dissect.runs import Run
    from dissect.views.report import write_report

    if not runs:
        raise DissectError("a report needs at least one run folder: dissect report RUN [RUN ...]")
    print(write_report([Run.load(path) for path in runs], out or runs[0] / "report.html").resolve())


def demo(out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/demo")) -> None:
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


COMMANDS = {"prune": prune, "demo": demo, "report": report, "models": models}


def main(args: list[str] | None = None) -> int:
    """Run the command line; errors of input are one line on standard error and exit status 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="dissect", args=args, description="Which neurons of this language model do that?"
        )
    except DissectError as error:
        print(f"dissect: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "dissect: interrupted; finished steps are kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    return 0
