"""The attack: what its table says is what its parts measured, and a report shows it."""

from __future__ import annotations

import json

import pytest

import dissect
from dissect import DissectError, Verdict, views
from dissect.cli.main import main
from dissect.evidence import attack as module
from dissect.evidence.verdict import FILE, FOLDER, Finding
from tests.support import tiny
from tests.support.bridges import OTHERS
from tests.support.named_runs import WORDS, fill, run_of

pytest.importorskip("bitsandbytes")
SMALL = module.Budget(2, (1e-3,), ("full",), (8,), (0, 1), 60)


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.FAMILIES, "llama", OTHERS["llama-in-blocks"])
        patch.setitem(module.BUDGETS, "quick", SMALL)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, patched):
    folder = fill(tmp_path_factory.mktemp("attack"))
    for name, words in WORDS.items():
        for number in range(40, 90):
            (folder / name / f"{number}.txt").write_text(f"{number} " + words * 3)
    return run_of(folder, "run", site="mlp", fraction=0.2, steps=1, tokens=300, eval_tokens=300)


@pytest.fixture(scope="module")
def result(run):
    return dissect.attack(run, budget="quick", progress=False)


def test_the_table_is_what_the_parts_say(run, result):
    rows = result.verdict.table().set_index("way")
    shown = result.in_context.table().set_index(["model", "examples of", "k"])
    assert rows.loc["1 example in the prompt", "after"] == 100 * shown.loc[("pruned", "forget", 1), "top1"]
    weights = result.quantization.table().set_index(["variant", "weights", "corpus"])
    assert rows.loc["8bit weights", "after"] == 100 * weights.loc[("cut", "8bit", "forget"), "top1"]
    assert rows.loc["8bit weights", "unpruned"] == 100 * weights.loc[("unpruned", "as it is", "forget"), "top1"]
    layers = result.inside.table().query("what == 'lens' and model == 'pruned'")
    lens = next(way for way in rows.index if way.startswith("logit lens"))
    assert rows.loc[lens, "after"] == 100 * layers["accuracy"].max()
    assert rows.loc[lens, "pruned"] == 100 * layers["accuracy"].iloc[-1]
    assert any("forget text from retain text" in note for note in result.verdict.notes)
    best = result.relearning.best()
    assert rows.loc["training (full, cut held at zero)", "after"] == 100 * best.values("forget")[-1]
    assert rows.loc["training (full, cut held at zero)", "cost"].startswith("2 steps")
    assert result.verdict.worst().recovered == pytest.approx(rows["recovered"].max() / 100)


@pytest.mark.parametrize(("after", "recovered"), [(0.2, 0.0), (0.4, 0.5), (0.6, 1.0), (0.1, -0.25)])
def test_recovered_is_a_fraction_of_what_was_lost(after, recovered):
    assert Finding("", 0.6, 0.2, after, None, None, "", "").recovered == pytest.approx(recovered)
    assert Finding("", 0.2, 0.2, after, None, None, "", "").recovered == 0


def test_it_is_kept_and_shown(run, result, tmp_path, capsys):
    assert Verdict.load(run.path) == result.verdict
    page = views.write_attack(result, tmp_path / "attack.html").read_text()
    assert all(finding.way in page for finding in result.verdict.findings)
    report = dissect.write_report([run], tmp_path / "report.html").read_text()
    assert "Is it gone?" in report
    assert result.verdict.worst().way in report
    assert main(["attack", str(run.path), "--budget", "quick"]) == 0
    printed = capsys.readouterr().out
    assert "most came back by" in printed
    assert (run.path / FOLDER / "attack.html").exists()


def test_a_report_of_a_run_that_was_not_attacked_says_nothing(tmp_path):
    run = run_of(fill(tmp_path), "run", steps=1)
    assert Verdict.load(run.path) is None
    assert "Is it gone?" not in dissect.write_report([run], tmp_path / "report.html").read_text()


def test_the_run_is_left_as_it_was(run, result):
    assert dissect.Run.load(run.path).record == run.record
    assert {path.name for path in run.path.iterdir() if path.is_dir()} == {FOLDER, "quantized"}


def test_a_changed_verdict_is_not_shown(run, result, tmp_path):
    path = run.path / FOLDER / FILE
    before = path.read_text()
    record = json.loads(before)
    record["findings"][0]["after"] = 0.0
    path.write_text(json.dumps(record))
    try:
        with pytest.raises(DissectError, match=r"verdict.json is damaged.*again"):
            dissect.write_report([run], tmp_path / "report.html")
    finally:
        path.write_text(before)


def test_an_unknown_budget_is_refused_before_anything_is_done(run):
    with pytest.raises(DissectError, match=r"budget.*'endless'.*quick"):
        dissect.attack(run, budget="endless")


def test_what_needs_a_package_that_is_missing_is_said(run, result, monkeypatch):
    found = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    left_out = []
    assert module._ways(module.Budget(1, (1e-3,), ("full", "lora"), (8,), (0, 1), 60), left_out) == ("full",)
    assert "dissect[peft]" in left_out[0]
