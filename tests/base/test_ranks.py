"""One run on many processes: the masks of one process and its metrics, whatever happens to a rank."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dissect import Run
from tests.support import tiny
from tests.support.fault_server import wait_for
from tests.support.faults import ROOT, Server, needs_fork
from tests.support.runs import small_run

pytestmark = needs_fork


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.process.communicate()


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A command line on local text and a tiny model of a family."""
    folder = tmp_path_factory.mktemp("texts")
    for name, word in (("code", "def f(x): return x\n"), ("prose", "the cat sat on a mat. ")):
        (folder / name).mkdir()
        for number in range(24):
            (folder / name / f"{number}.txt").write_text(f"{number} " + word * (6 + number % 5))

    def arguments(family):
        path = folder / family
        if not path.exists():
            tiny.save_tiny(family, path)
        corpora = ["--forget", str(folder / "code"), "--retain", str(folder / "prose")]
        sizes = ["--tokens", "120", "--context", "16", "--batch-size", "2", "--dtype", "float32"]
        return ["prune", "--model", str(path), *corpora, *sizes]

    return arguments


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ranks(server, size, job, **arguments):
    """The pids of `size` processes that do a job together."""
    shared = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "TORCHELASTIC_RUN_ID": "x"}
    pids = []
    for rank in range(size):
        environment = {name: str(value) for name, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        pids.append(server.start("ranked", environment=environment, name=job, arguments=arguments))
    return pids


def on_ranks(server, size, job, **arguments):
    """How each rank of a job ended, and what it printed."""
    return [server.wait(pid) for pid in start_ranks(server, size, job, **arguments)]


def numbers(history):
    return [value for step in history for side in step.metrics.values() for value in side.values()]


def assert_same(ours, theirs):
    """Masks and statistics of the same scores; metrics to 1e-9."""
    assert ours.finished
    assert len(ours.history) == len(theirs.history)
    for site, at in theirs.pruned_at.items():
        assert ours.pruned_at[site].equal(at)
    assert numbers(ours.history) == pytest.approx(numbers(theirs.history), rel=1e-9, abs=1e-12)
    for side in ("forget", "retain") if theirs.has_stats else ():
        for site, stats in theirs.stats(side).items():
            assert ours.stats(side)[site].count == stats.count
            for name, sums in stats.moments.items():
                assert ours.stats(side)[site][name].numpy() == pytest.approx(sums.numpy(), rel=1e-9, abs=1e-12)


# There are 4 windows: with 3 ranks they do not divide, and in batches of 2 the third rank has none.
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (1, {"batch_size": 1}),
        (2, {"batch_size": 1}),
        (3, {"batch_size": 1}),
        (3, {"batch_size": 2, "kl": True}),
        (2, {"batch_size": 1, "value": "mean", "importance": "std"}),
        (2, {"batch_size": 1, "site": "value", "svd": True, "iterative": False}),
        (2, {"batch_size": 1, "selector": "random", "value": "mean"}),
        (2, {"batch_size": 2, "site": {"mlp": 0.1, "pre_out": 0.05}, "steps": 2}),
        (2, {"batch_size": 1, "compensate": "retain"}),
    ],
)
def test_many_processes_are_one(server, tmp_path, size, options):
    ended = on_ranks(server, size, "seen", out=tmp_path / "many", **options)
    assert [code for code, _ in ended] == [0] * size, ended
    many, one = Run.load(tmp_path / "many"), small_run(tmp_path / "one", **options)
    assert_same(many, one)
    for _, output in ended:  # every rank has the run that is on the main one's disk
        history, pruned_at = json.loads(output)
        assert history == [step.as_json() for step in many.history]
        assert pruned_at == {site: at.tolist() for site, at in many.pruned_at.items()}


def test_a_match_is_found_on_every_rank(server, tmp_path):
    matched = small_run(tmp_path / "matched", batch_size=1)
    options = {"selector": "layer-random", "match": str(matched.path), "batch_size": 1}
    assert [code for code, _ in on_ranks(server, 2, "run", out=tmp_path / "many", **options)] == [0, 0]
    assert_same(Run.load(tmp_path / "many"), small_run(tmp_path / "one", **options))


def test_a_masked_model_and_the_command_line(server, command, tmp_path):
    arguments = [*command("roberta"), "--steps", "2", "--kl", "--out"]
    (code, output), silent = on_ranks(server, 2, "command", args=[*arguments, str(tmp_path / "many")])
    assert code == silent[0] == 0, output + silent[1]
    for line in ("step  2/2", f"run: {tmp_path / 'many'}"):
        assert line in output
        assert line not in silent[1]
    assert not any(bar in output + silent[1] for bar in ("statistics:", "evaluation:", "run:  "))  # for terminals
    assert server.do("command", args=[*arguments, str(tmp_path / "one")])[0] == 0
    assert_same(Run.load(tmp_path / "many"), Run.load(tmp_path / "one"))


def test_an_error_is_on_every_rank_and_said_once(server, command, tmp_path):
    (tmp_path / "notes.txt").touch()
    main, other = on_ranks(server, 2, "command", args=[*command("llama"), "--out", str(tmp_path)])
    assert main[0] == other[0] == 2
    assert main[1].strip() == f"dissect: error: {tmp_path} exists and is not a run folder; choose another --out"
    assert other[1] == ""


def test_ranks_with_other_models_are_told(server, tmp_path):
    for code, output in on_ranks(server, 2, "another_model", out=tmp_path / "run"):
        assert code == 2
        assert "rank 1 has another model than rank 0" in output
    assert not (tmp_path / "run" / "config.json").exists()


def test_what_is_not_finite_on_one_rank(server):
    ended = on_ranks(server, 2, "not_finite")
    for code, output in ended:
        assert code == 0, output
        for line in ("collect: activations of site", "evaluate: the logits are not finite", "reference_of: the logits"):
            assert line in output
    assert "alone 64" in ended[0][1]


@pytest.mark.parametrize("size", [1, 3])
def test_a_killed_rank_ends_the_run_which_goes_on_with_another_number(server, tmp_path, size):
    out, options = tmp_path / "run", {"batch_size": 1}
    survivor, victim = start_ranks(server, 2, "held", out=out, at=2, folder=tmp_path, **options)
    wait_for((tmp_path / "here").exists)
    os.kill(victim, signal.SIGKILL)
    (tmp_path / "go").touch()
    assert server.wait(victim)[0] == -signal.SIGKILL
    code, output = server.wait(survivor)
    assert code == 1
    assert re.search(f"RankLost: another of the 2 processes has ended.*finished steps are kept in {out}", output)
    assert len(Run.load(out).history) == 2
    assert [code for code, _ in on_ranks(server, size, "run", out=out, **options)] == [0] * size
    assert_same(Run.load(out), small_run(tmp_path / "one", **options))


def test_torchrun(server, command, tmp_path):
    """The launcher itself: a rank is killed, and it ends; then one process goes on."""
    out, arguments = tmp_path / "run", [*command("llama"), "--steps", "20"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    job = subprocess.Popen(
        [*launcher, str(free_port()), "-m", "dissect", *arguments, "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    history = out / "history.jsonl"
    wait_for(lambda: history.exists() and history.read_text().count("\n") > 2)
    os.kill(process_of_rank(job.pid, 1), signal.SIGKILL)
    _, errors = job.communicate(timeout=60)
    assert job.returncode != 0
    assert f"finished steps are kept in {out}, and the same call or command resumes from there" in errors
    assert "Loading weights" not in errors  # others' progress bars too are for terminals, and for the main rank alone
    assert 2 < len(Run.load(out).history) < 21
    assert server.do("command", args=[*arguments, "--out", str(out)])[0] == 0
    assert server.do("command", args=[*arguments, "--out", str(tmp_path / "one")])[0] == 0
    assert_same(Run.load(out), Run.load(tmp_path / "one"))


def process_of_rank(launcher, rank):
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
            return int(pid)
    raise LookupError(f"no process of rank {rank}")


def test_one_process_starts_nothing(server, tmp_path):
    assert server.do("alone", out=tmp_path / "run") == (0, "False False\n")
