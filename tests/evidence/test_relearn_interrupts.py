"""`dissect relearn` in a process of its own that gets Ctrl-C: the same command then ends with the same files."""

from __future__ import annotations

import os
import signal

import pytest

import dissect
from dissect.base.storage import LOCK
from tests.support.fault_server import wait_for
from tests.support.faults import needs_fork

pytestmark = needs_fork
OPTIONS = "--steps 3 --windows 2 --learning-rates 1e-2 --frozen True --eval-tokens 60 --cards 2".split()


@pytest.fixture(scope="module")
def run(folder_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("relearned")
    for name, words in (("forget", "the river {} rose above the town"), ("retain", "def f(x): return x + {}")):
        (folder / f"{name}.txt").write_text("\n\n".join(words.format(number) for number in range(200)))
    sides = {side: str(folder / f"{side}.txt") for side in ("forget", "retain")}
    how = {"tokens": 60, "context": 16, "dtype": "float32", "device": "cpu", "progress": False}
    return dissect.prune(str(folder_of("llama")), out=folder / "run", fraction=0.1, steps=1, **sides, **how)


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def command(run, out):
    return ["relearn", str(run.path), *OPTIONS, "--out", str(out)]


@pytest.fixture(scope="module")
def undisturbed(server, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    code, output = server.do("relearning", args=command(run, out))
    assert code == 0, output
    found = files_of(out)
    assert {"relearning.json", "curves.csv", "regrowth.csv", "relearning.html"} <= set(found)
    assert not [name for name in found if name.startswith("training-")]
    return found


# Three trainings of three steps: the pruned model, a random control, the unpruned model. Measured are three texts after
# steps 0, 1, 2 and 3.
@pytest.mark.parametrize(
    ("where", "at", "every"),
    [
        ("step", 1, 60),  # nothing is measured after it yet
        ("step", 3, 60),  # the last step of the first training, which begins anew
        ("step", 3, 0),  # which is resumed from a state on disk
        ("step", 5, 0),  # in the second training
        ("measure", 8, 0),  # one of the three texts, after step 2
        ("state", 1, 0),
        ("model", 1, 60),  # the model is there, and the record does not say that its training ended
        ("map", 2, 60),  # all is trained
    ],
)
def test_ctrl_c_and_the_same_command_again_give_the_same_files(server, run, undisturbed, tmp_path, where, at, every):
    before, out = files_of(run.path), tmp_path / "out"
    pid = server.start("relearning", args=command(run, out), where=where, at=at, folder=tmp_path, every=every)
    wait_for((tmp_path / "here").exists)
    os.kill(pid, signal.SIGINT)
    code, output = server.wait(pid)
    assert code == 130, output
    assert output.strip().splitlines()[-1].startswith("dissect: interrupted")
    if where != "map":
        assert f"kept in {out}, and the same call or command resumes from there" in output
        assert files_of(out) != undisturbed
    assert not [name for name in files_of(out) if name.endswith(".part")]
    assert len(list(out.glob("training-*"))) == ((where, every) in (("step", 0), ("measure", 0), ("state", 0)))
    assert files_of(run.path) == before
    code, output = server.do("relearning", args=command(run, out))
    assert code == 0, output
    assert files_of(out) == undisturbed
    assert files_of(run.path) == before


def test_another_command_over_the_same_folder_names_the_option(server, run, undisturbed, tmp_path):
    out = tmp_path / "out"
    pid = server.start("relearning", args=command(run, out), where="step", at=2, folder=tmp_path)
    wait_for((tmp_path / "here").exists)
    os.kill(pid, signal.SIGINT)
    assert server.wait(pid)[0] == 130
    found = files_of(out)
    code, output = server.do("relearning", args=[*command(run, out), "--windows", "3"])
    assert code == 2
    assert "relearning of another config (windows)" in output
    assert files_of(out) == found
