"""The command line: its parser, and how a command ends."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext

import tyro

from dissect.base.errors import DissectError
from dissect.base.ranks import RankLost, is_main
from dissect.base.streams import lasting, quiet, shows_bars
from dissect.cli.commands import COMMANDS
from dissect.runs.command import typed


def main(args: list[str] | None = None) -> int:
    """Run the command line; errors of input are one line on standard error and exit status 2.

    Exit status 1 is a command's own answer (`rerun`: the runs differ); or another rank was lost, or what was to be
    printed could not be written. A reader that closes the pipe early is no error.
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
    """True for the main rank, in a terminal or a notebook."""
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    return shows_bars(sys.stderr) and not (under_torchrun and os.environ.get("RANK") != "0")


def _run(args: list[str] | None) -> int:
    _behave_under_torchrun()
    try:
        given = sys.argv[1:] if args is None else args
        with typed(["dissect", *given]):
            status = tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="dissect",
                args=_with_values(given),
                description="Which neurons of this language model do that?",
            )
    except DissectError as error:
        _complain("error: " + " ".join(str(error).split()))
        return 2
    except RankLost as error:
        _complain(f"error: rank {os.environ['RANK']}: {error}", everybody=True)
        return 1
    except KeyboardInterrupt as stop:
        kept = "interrupted; finished steps are kept, and the same command resumes after them"
        _complain(str(stop) or kept)
        return 130
    return status or 0


def _with_values(args: list[str]) -> list[str]:
    """`--bridge` and `--no-bridge` with the value that tyro wants of a flag that may also be left open."""
    given = []
    for word, following in zip(args, [*args[1:], ""], strict=True):
        short = {"--no-bridge": "False", "--bridge": "True"}.get(word)
        explicit = word == "--bridge" and following in ("True", "False", "None")
        given += [word] if short is None or explicit else ["--bridge", short]
    return given


def _behave_under_torchrun() -> None:
    """The signal by which torchrun stops its processes does what Ctrl-C does."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _complain(message: str, *, everybody: bool = False) -> None:
    if everybody or is_main():
        print(f"dissect: {message}", file=sys.stderr, flush=True)
