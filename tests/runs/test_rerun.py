"""A run repeated from its record: the same, or the first difference by name; and what a run begins under."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import dissect
from dissect import DissectError, PruneConfig, Run, rerun
from dissect.base.storage import write_text
from dissect.cli.main import main
from dissect.runs import origin, writer
from dissect.runs.command import command, typed
from dissect.runs.prune import run_config
from dissect.runs.records import HISTORY
from dissect.scoring.stats import Stats, UnitStats
from tests.support import tiny
from tests.support.models import tiny_transformer
from tests.support.named_runs import fill
from tests.support.runs import Killed, files_of, guessable_sides, kill_at, small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two corpora of short documents, a tiny model, and a run of them."""
    folder = fill(tmp_path_factory.mktemp("named"))
    names = {"model": str(folder / "model"), "forget": str(folder / "code"), "retain": str(folder / "prose")}
    options = {"fraction": 0.1, "steps": 2, "tokens": 60, "context": 16, "dtype": "float32"}
    run_config(PruneConfig(**names | options), out=folder / "run", progress=False)
    return folder


@pytest.fixture
def run(folder, tmp_path):
    return Run.load(shutil.copytree(folder / "run", tmp_path / "run"))


def again(run, **options):
    return rerun(run.path, progress=False, **options)


def test_the_same_machine_gives_the_same_bits(run, capsys):
    assert main(["rerun", str(run.path)]) == 0
    repeated = run.path.with_name("run-rerun")
    assert files_of(repeated) == files_of(run.path)
    assert f"{repeated} and {run.path} are the same, bit for bit, at every step." in capsys.readouterr().out


def altered(run, *, line=None, chosen=None, stats=None):
    """The run with another past: what each function changes is written as a run would have written it."""
    lines, masks = list(run.history), [run.mask(0), *(run.mask(step) - run.mask(step - 1) for step in (1, 2))]
    sums = {side: run.stats(side) for side in ("forget", "retain")}
    for change, value in ((line, lines), (chosen, masks), (stats, sums)):
        if change:
            change(value)
    for side in sums:
        writer.save_base(run, side, sums[side])
    run.history = []
    run.pruned_at = {site: torch.full_like(steps, -1) for site, steps in run.pruned_at.items()}
    for line, mask in zip(lines, masks, strict=True):
        writer.commit(run, line, mask)
    return Run.load(run.path)


def with_top1(step, more):
    """The step with another top-1 accuracy on the retain side."""
    retain = step.metrics["retain"]
    return replace(step, metrics=step.metrics | {"retain": retain | {"top1": retain["top1"] + more}})


def worse(lines):
    lines[2] = with_top1(lines[2], 0.125)


def later(masks, count=2):
    """Step 1 left its last units to step 2."""
    for unit in masks[1].units("mlp")[-count:]:
        masks[1]["mlp"][unit], masks[2]["mlp"][unit] = False, True


def other_sum(sums):
    mlp = sums["retain"]["mlp"]
    moments = {name: sums.clone() for name, sums in mlp.moments.items()}
    moments["sum_sq"][1, 5] *= 3
    sums["retain"] = Stats({"mlp": UnitStats(mlp.count, moments)})


@pytest.mark.parametrize(
    ("past", "step", "file", "what"),
    [
        ({"line": worse}, 2, "history.jsonl", r"metrics\.retain\.top1: "),
        ({"chosen": later}, 1, "pruned_at.safetensors", r"mlp unit \(.*: kept there, pruned at step 1 here"),
        ({"stats": other_sum}, 0, "stats-retain.safetensors", r"mlp/sum_sq of unit \(1, 5\): "),
        ({"line": worse, "chosen": later}, 1, "pruned_at.safetensors", "kept there"),
    ],
)
def test_the_first_difference_is_named(run, capsys, past, step, file, what):
    altered(run, **past)
    assert main(["rerun", str(run.path)]) == 1
    first = again(run).first
    assert (first.step, first.file) == (step, file)
    printed = capsys.readouterr().out
    assert f"first: step {step}, {file}, " in printed
    assert re.search(what, printed)


def test_where_nothing_was_altered_nothing_differs(run):
    assert again(altered(run)).differences == ()


def on_another_machine(monkeypatch):
    here = origin.machine
    monkeypatch.setattr("dissect.runs.origin.machine", lambda model: here(model) | {"threads": 96})


@pytest.mark.parametrize(("apart", "same"), [(0.005, True), (0.125, False)])
def test_another_machine_is_within_tolerance(run, monkeypatch, apart, same):
    def a_little_worse(lines):
        lines[1] = with_top1(lines[1], apart)

    altered(run, line=a_little_worse)
    assert again(run).first.what == "metrics.retain.top1"  # on the same machine it would be a difference
    shutil.rmtree(run.path.with_name("run-rerun"))
    on_another_machine(monkeypatch)
    result = again(run)
    assert result.same is same
    assert result.changed == {"machine.threads": (1, 96)}
    assert "machine.threads: 1 there, 96 here" in str(result)
    assert f"metric {apart:.2g} (0.01 allowed)" in str(result)


@pytest.mark.parametrize(("count", "same"), [(1, True), (2, False)])
def test_masks_have_a_tolerance_of_their_own(run, monkeypatch, count, same):
    """What follows from masks, such as their digests, is not held against them once more."""
    altered(run, chosen=lambda masks: later(masks, count))
    on_another_machine(monkeypatch)
    result = again(run)
    assert result.same is same
    masks = [each for each in result.differences if each.file == "pruned_at.safetensors"]
    assert [each.size for each in masks] == pytest.approx([count / 24])
    assert "digests.pruned_at" in [each.what for each in result.differences]


@pytest.mark.parametrize("what", ["model", "text"])
def test_another_model_or_text_is_not_run(folder, run, capsys, tmp_path, what):
    aside = shutil.copytree(folder, tmp_path / "aside")
    try:
        if what == "model":
            shutil.rmtree(folder / "model")
            model = tiny.FAMILIES["llama"]()
            with torch.no_grad():
                model.lm_head.weight[0, 0] += 1
            model.save_pretrained(folder / "model")
            tiny.tiny_tokenizer(folder / "model")
        else:
            for path in (folder / "prose").iterdir():
                path.write_text(path.read_text().replace("cat", "dog"))
        assert main(["rerun", str(run.path)]) == 1
    finally:
        shutil.rmtree(folder)
        shutil.copytree(aside, folder)
    printed = capsys.readouterr().out
    assert "the same versions and machine" in printed
    field = "model.fingerprint" if what == "model" else "data.retain.train"
    assert f"first: before step 0, config.json, {field}" in printed
    assert not run.path.with_name("run-rerun").exists()


def test_windows_are_repeated_from_python_only(tmp_path, capsys):
    run = small_run(tmp_path / "run")
    assert main(["rerun", str(run.path)]) == 2
    assert "dissect.rerun(run, model=model, forget=(train, test), retain=(train, test))" in capsys.readouterr().err
    windows = guessable_sides()
    assert rerun(run, model=tiny_transformer(), **windows, progress=False).differences == ()
    others = rerun(run, model=tiny_transformer(), forget=windows["retain"], retain=windows["retain"])
    assert others.again is None
    assert others.first.what == "data.forget.train.fingerprint"
    with pytest.raises(DissectError, match=r"cannot load the model .* again: .*in Python: dissect\.rerun"):
        rerun(run, **windows)


def test_what_cannot_be_repeated(run, monkeypatch):
    with pytest.raises(DissectError, match="is the run itself; choose another --out"):
        again(run, out=run.path / ".." / "run")
    lines = (run.path / HISTORY).read_text().splitlines(keepends=True)
    write_text(run.path / HISTORY, "".join(lines[:2]))
    with pytest.raises(DissectError, match="has taken 1 of its 2 steps; finish it with its own command"):
        again(run)


def test_an_interrupted_repetition_goes_on(run, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, "history.jsonl", 2)
        with pytest.raises(Killed):
            again(run)
    assert len(Run.load(run.path.with_name("run-rerun")).history) == 2
    assert again(run).differences == ()


# What a run began under


def test_a_run_that_goes_on_elsewhere_keeps_where_it_began(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, "history.jsonl", 2)
        with pytest.raises(Killed):
            small_run(tmp_path / "run")
    began = Run.load(tmp_path / "run").record["began"]
    on_another_machine(monkeypatch)
    with typed(["dissect", "prune"]):
        assert small_run(tmp_path / "run").record["began"] == began
        other = small_run(tmp_path / "other")
    assert other.record["began"]["machine"]["threads"] == 96
    assert other.record["began"]["command"] == ["dissect", "prune"]
    assert files_of(tmp_path / "other") == files_of(tmp_path / "run")


def test_the_command_is_recorded(folder, tmp_path, monkeypatch):
    names = ["--model", folder / "model", "--forget", folder / "code", "--retain", folder / "prose"]
    args = [
        "prune",
        *map(str, names),
        "--tokens",
        "30",
        "--context",
        "16",
        "--steps",
        "1",
        "--out",
        str(tmp_path / "r"),
    ]
    assert main(args) == 0
    assert Run.load(tmp_path / "r").record["began"]["command"] == ["dissect", *args]
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # other tests may have imported it
    monkeypatch.setattr(sys, "argv", ["/home/me/sweep.py", "3"])
    assert command() == ["sweep.py", "3"]
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert command() is None


def test_git_is_recorded_where_there_is_any(tmp_path, monkeypatch):
    def git(*args):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.check_output(["git", "-C", tmp_path, *identity, *args], text=True).strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert origin.git_state(tmp_path) is None
    git("init", "-q")
    (tmp_path / "sweep.py").write_text("1")
    git("add", "sweep.py")
    git("commit", "-q", "-m", "first")
    (tmp_path / "untracked").touch()
    assert origin.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "sweep.py").write_text("2")
    assert origin.git_state(tmp_path)["dirty"] is True
    monkeypatch.setenv("PATH", "")
    assert origin.git_state(tmp_path) is None


def test_everything_is_recorded(run):
    began = run.record["began"]
    assert set(began) == {"command", "git", "machine", "checksum"}
    assert set(began["git"]) == {"folder", "dissect"}
    assert began["machine"]["threads"] == torch.get_num_threads()
    assert began["machine"]["device"] == "cpu"
    assert {"platform", "cpu", "float32_matmul_precision", "quick_pass"} <= set(began["machine"])
    assert run.record["config"]["seed"] == 0
    assert run.record["versions"]["torch"] == torch.__version__
    assert json.loads(json.dumps(began)) == began
    assert dissect.Run.load(run.path).record == run.record
