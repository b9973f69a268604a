"""A process that has imported everything and forks a child for each job, to be killed, interrupted or locked out.

It reads `start NAME {arguments}` and answers with the child's pid; and `wait PID` and answers with how it ended.
A child's output is in a file named after its pid, in the folder that the server is started in.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dissect import collect, evaluate
from dissect.base import storage
from dissect.base.errors import DissectError
from dissect.base.ranks import distributed, rank
from dissect.cli import main as cli
from dissect.evaluation.evaluate import reference_of
from dissect.runs import prune as pruning
from dissect.runs import steps
from tests.support.amounts import wait_for_no_disk
from tests.support.models import our_hooks, tiny_transformer
from tests.support.processes import as_process, program
from tests.support.runs import guessable_sides, small_run


def run(out: str, **changes: Any) -> None:
    """A run from beginning to end, if nothing comes between."""
    small_run(Path(out), **changes)


def stop_at(out: str, n: int, by: int, **changes: Any) -> None:
    """Send the signal `by` to itself at the n-th boundary of a write or a step; for n = 0 print how many there are."""
    left = [n]

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), by)

    at_boundaries(tick)
    model = tiny_transformer()
    before = [parameter.clone() for parameter in model.parameters()]
    try:
        small_run(Path(out), model, **changes)
    except KeyboardInterrupt:
        unharmed = all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
        print("whole" if unharmed and our_hooks(model) == 0 else "harmed")
        raise
    print(-left[0])


def at_boundaries(tick: Callable[[], None]) -> None:
    """Call `tick` before, within and after everything that a run writes, and around every step."""

    class Torn:
        """A file of which half is on disk at the boundary."""

        def __init__(self, path: Path, mode: str) -> None:
            tick()
            self.file = open(path, mode)  # noqa: SIM115 (closed in __exit__)

        def __enter__(self) -> Torn:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            tick()
            self.file.write(data[len(data) // 2 :])

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    def around(function: Callable) -> Callable:
        def ticking(*args: Any) -> Any:
            tick()
            result = function(*args)
            tick()
            return result

        return ticking

    storage.open = Torn  # type: ignore[attr-defined]
    os.fsync, os.replace = around(os.fsync), around(os.replace)
    steps.commit, pruning.take_step = around(steps.commit), around(steps.take_step)


def held(out: str, at: int, folder: str, **changes: Any) -> None:
    """A run that says `here` in `folder` before step `at`, and goes on when `go` is there."""

    wait_at(at, Path(folder))
    small_run(Path(out), **changes)


def wait_at(at: int, folder: Path) -> None:
    """Wait before step `at`, as `held` says."""

    def waiting(work: steps.Work, step: int) -> None:
        if step == at:
            (folder / "here").touch()
            wait_for((folder / "go").exists)
        steps.take_step(work, step)

    pruning.take_step = waiting


def late(out: str, folder: str, **changes: Any) -> None:
    """A run that finds no folder yet, and goes on from there when `go late` is there."""
    find = pruning._find_matched

    def waiting(*args: Any, **options: Any) -> Any:
        (Path(folder) / "here late").touch()
        wait_for((Path(folder) / "go late").exists)
        return find(*args, **options)

    pruning._find_matched = waiting
    small_run(Path(out), **changes)


def read_only(out: str, at: int, **changes: Any) -> None:
    """A run whose folder becomes read-only before step `at`, by a user who may not write where that is forbidden."""

    def closing(work: steps.Work, step: int) -> None:
        if step == at:
            Path(out).chmod(0o555)
        steps.take_step(work, step)

    pruning.take_step = closing
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    small_run(Path(out), **changes)


def limited(out: str, size: int, **changes: Any) -> None:
    """A run that may write no file beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    small_run(Path(out), **changes)


def peak_of_collect(predictions: int) -> None:
    """Print the process's peak memory in kilobytes while `predictions` are collected, and what it was before."""
    from dissect import Windows, collect

    model = tiny_transformer(n_layers=1, d_mlp=500)
    tokens = torch.randint(0, 50, (40_000 // 63, 64), generator=torch.Generator().manual_seed(0))
    everything = Windows.from_tokens(tokens)  # of the same size for every number of predictions
    windows = everything[: predictions // 63]
    collect(model, everything[:32], progress=False)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from now
    before = memory()
    collect(model, windows, progress=False)
    print(before, memory())


def memory() -> int:
    """The peak of this process's memory in kilobytes."""
    fields = Path("/proc/self/status").read_text()
    return int(fields.split("VmHWM:")[1].split()[0])


def command(args: list[str], at: int = -1, folder: str = "") -> None:
    """The command line, held before step `at`."""
    wait_at(at, Path(folder))
    sys.exit(cli.main(args))


def relearning(args: list[str], where: str = "", at: int = 0, folder: str = "", every: float = 60.0) -> None:
    """The command line, with a state on disk `every` seconds, held after the `at`-th call of what `where` names.

    It says `here` in `folder` then, and goes on when `go` is there.
    """
    from dissect.evidence import regrowth, relearn_work
    from dissect.training.training import Training

    relearn_work.SAVED_EVERY = every
    places = {
        "step": (Training, "_set_gradients"),
        "measure": (relearn_work, "evaluate_documents"),
        "state": (Training, "save"),
        "model": (relearn_work, "save_folder"),
        "map": (regrowth, "collect"),
    }
    if where:
        place, name = places[where]
        inner, calls = getattr(place, name), []

        def waiting(*args: Any, **options: Any) -> Any:
            result = inner(*args, **options)
            calls.append(1)
            if len(calls) == at:
                (Path(folder) / "here").touch()
                wait_for((Path(folder) / "go").exists)
            return result

        setattr(place, name, waiting)
    sys.exit(cli.main(args))


def ranked(environment: dict[str, str], name: str, arguments: dict[str, Any]) -> None:
    """Another job, as one rank of a torchrun job."""
    os.environ.update(environment)
    JOBS[name](**arguments)


def seen(out: str, **changes: Any) -> None:
    """A run; print what this process then has of it in memory."""
    result = small_run(Path(out), **changes)
    print(
        json.dumps(
            [[step.as_json() for step in result.history], {site: at.tolist() for site, at in result.pruned_at.items()}]
        )
    )


def alone(out: str) -> None:
    """A run; print whether anything of many processes was touched."""
    small_run(Path(out))
    print("ray" in sys.modules, torch.distributed.is_initialized())


def another_model(out: str) -> None:
    """A run for which each rank has another model."""
    small_run(Path(out), tiny_transformer(seed=int(os.environ["RANK"])))


def not_finite() -> None:
    """What is said on this rank where another's weights are broken; outside the block nobody waits for another."""
    model, windows = tiny_transformer(), guessable_sides()["retain"][1]
    with distributed():
        if rank() == 1:
            model.blocks[1].mlp.W_out[:] = torch.nan
        for act in (collect, evaluate, reference_of):
            try:
                act(model, windows, batch_size=1)
            except DissectError as error:
                print(f"{act.__name__}: {str(error)[:30]}")
    if rank() == 0:
        print("alone", evaluate(model, windows, batch_size=1, progress=False)["n"])


def wait_for(what: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {seconds} s")
        time.sleep(0.005)


FAULTS = (run, stop_at, held, late, read_only, limited, peak_of_collect, command, relearning, program, as_process)
RANKS = (ranked, seen, alone, another_model, not_finite)
JOBS = {job.__name__: job for job in (*FAULTS, *RANKS)}


def child(name: str, arguments: dict[str, Any]) -> int:
    """Do a job; 0 if it ended well, 2 for an error of ours, 130 for Ctrl-C, 1 for any other error."""
    try:
        JOBS[name](**arguments)
    except DissectError as error:
        print(f"DissectError: {error}")
        return 2
    except KeyboardInterrupt as error:
        print(f"KeyboardInterrupt: {error}")
        return 130
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def start(name: str, arguments: dict[str, Any]) -> int:
    """Fork a child that does a job; its pid."""
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(f"{os.getpid()}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = child(name, arguments)
    sys.stdout.flush()
    os._exit(code)


def serve() -> None:
    """Answer until the input ends."""
    wait_for_no_disk()
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is shared with children, and one that is killed may hold it for good
    tqdm.monitor_interval = 0  # nor may a thread of ours hold it while a child is forked
    guessable_sides()
    small_run(Path("warm-up"))  # what is imported late is imported now
    gc.collect()
    gc.freeze()  # children share what is here until they write to it, which a look for garbage does
    print("ready", flush=True)
    for line in sys.stdin:
        verb, rest = line.split(" ", 1)
        if verb == "start":
            name, arguments = rest.split(" ", 1)
            print(start(name, json.loads(arguments)), flush=True)
        else:
            _, status = os.waitpid(int(rest), 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
