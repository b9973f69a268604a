"""One rule for paths: `~` is the home, for reading and for writing, in Python and on the command line."""

from __future__ import annotations

import pytest
import torch

import dissect
from dissect import DissectError, Mask, Run, Stats, views
from dissect.base.checks import as_path, as_text_or_path
from dissect.cli import main as cli
from tests.support import tiny
from tests.support.runs import small_run

ASK = "--tokens 40 --context 16 --steps 2 --fraction 0.1 --dtype float32".split()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a model and a text in it, and a folder to work in, in which nothing called `~` may appear."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    tiny.save_tiny("llama", tmp_path / "home" / "model")
    lines = [f"the river {number} rose above the town" for number in range(400)]
    (tmp_path / "home" / "text.txt").write_text("\n\n".join(lines))
    yield tmp_path / "home"
    assert not [path.name for path in (tmp_path / "work").iterdir() if path.name.startswith("~")]


@pytest.fixture
def model(home):
    return dissect.load_model("~/model", dtype="float32")


def test_results_in_memory(home, model):
    windows = dissect.load_windows("~/text.txt", model, tokens=40, context=16)
    assert windows.provenance["corpus"] == "~/text.txt"  # so that the record is the same in another home
    assert dissect.load_windows("~/*.txt", model, tokens=40, context=16).fingerprint == windows.fingerprint
    stats = dissect.collect(model, windows, progress=False)
    stats.save("~/stats.safetensors")
    mask = Mask.of(model, "mlp", [(0, 1)])
    mask.save("~/mask.safetensors")
    dissect.export(model, "~/exported")
    assert {"stats.safetensors", "mask.safetensors", "exported"} <= {path.name for path in home.iterdir()}
    assert torch.equal(Stats.load("~/stats.safetensors")["mlp"]["sum_abs"], stats["mlp"]["sum_abs"])
    assert Mask.load("~/mask.safetensors") == mask
    assert dissect.load_model("~/exported", dtype="float32").cfg.n_layers == 3


def test_runs_and_pages(home):
    run = small_run("~/run", steps=2)
    matched = small_run("~/matched", steps=2, selector="layer-random", match="~/run")
    assert Run.load("~/run").finished
    assert run.path == home / "run"
    assert matched.config.match == str(home / "run")
    views.write_report([run], "~/report.html")
    views.write_figures([run], "~/")
    views.write_page([run.figure()], "~/page.html")
    for name in ("report.html", "figure_1.html", "page.html", "matched"):
        assert (home / name).exists(), name


def test_a_match_and_a_repetition(home):
    from dissect.runs.config import PruneConfig
    from dissect.runs.prune import run_config

    common = {"model": "~/model", "forget": "~/text.txt", "retain": "~/text.txt", "fraction": 0.1, "steps": 1}
    small = {"tokens": 40, "eval_tokens": 30, "context": 16, "dtype": "float32"}
    run = run_config(PruneConfig(**common, **small), out="~/run", progress=False)
    config = PruneConfig(**common, **small, selector="layer-random", match="~/run")
    assert run_config(config, out="~/matched", progress=False).finished
    assert dissect.rerun(run, out="~/again", progress=False).same
    assert (home / "again" / "config.json").is_file()


def test_a_grid(home):
    base = dissect.PruneConfig("~/model", "~/text.txt", "~/text.txt", steps=1, fraction=0.1, tokens=40, context=16)
    grid = dissect.Grid(base, selectors=("score", "random"))
    result = dissect.run_grid(grid, "~/grid", progress=False)
    assert not result.failures
    assert (home / "grid" / "summary.csv").is_file()


def test_the_command_line(home, capsys):
    """Where no shell has expanded it, as in `--out=~/run`."""
    ask = ["--forget", "~/text.txt", "--retain", "~/text.txt", *ASK]
    few = [*ask[:8], "--fraction", "0.1", "--sites", "mlp", "--importances", "abs", "--splits", "1"]
    commands = [
        ["prune", "--model", "~/model", *ask, "--out", "~/run"],
        ["compare", "--models", "~/model", *ask[:-2], "--sites", "mlp", "--out", "~/grid"],
        ["export", "~/run", "--out", "~/exported"],
        ["report", "~/run"],
        ["report", "~/run", "--out", "~/page.html"],
        ["rerun", "~/run", "--out", "~/again"],
        ["stability", "--model", "~/model", *few, "--out", "~/stability"],
    ]
    for command in commands:
        assert cli.main(command) == 0, (command, capsys.readouterr().err)
    made = [
        "run/report.html",
        "grid/summary.csv",
        "exported/config.json",
        "page.html",
        "again",
        "stability/stability.csv",
    ]
    assert not [name for name in made if not (home / name).exists()]


def test_reproduce_and_demo_get_the_folder_in_the_home(home, monkeypatch, capsys):
    seen = []

    def noted(*args, **options):
        seen.append(args[-1])
        raise DissectError("far enough")

    monkeypatch.setattr("dissect.experiments.run_grid.run_grid", noted)
    monkeypatch.setattr("dissect.cli.demo.run_demo", noted)
    for command in (["reproduce", "fig1", "--offline"], ["demo"]):
        cli.main([*command, "--out", "~/there"])
    assert seen == [home / "there"] * 2


def test_the_rule(home):
    assert as_path("out", "~") == home
    assert as_path("out", "~/a/~b") == home / "a" / "~b"
    assert as_text_or_path("model", "a/~") == "a/~"
    with pytest.raises(DissectError, match=r"out '~nobody-here/a' cannot be a path: there is no such user"):
        as_path("out", "~nobody-here/a")
