"""Further corpora: measured at every step, by what the pruned model predicts, and changing nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

import dissect
from dissect import DissectError, PruneConfig, Run, evaluate, rerun, views, write_report
from dissect.cli.main import main
from dissect.experiments.cost import SHAPES, run_operations
from dissect.experiments.tables import summary_table
from dissect.runs.also import as_also, parse_also
from dissect.runs.config import run_name
from dissect.runs.differences import _line_differences
from dissect.runs.inputs import further_corpora
from dissect.runs.rerun import TOLERANCES
from dissect.runs.tables import summary_columns, summary_rows
from tests.support.hostile import HOSTILE
from tests.support.models import D_VOCAB, tiny_transformer
from tests.support.named_runs import fill, run_of
from tests.support.runs import Killed, files_of, guessable_sides, kill_at, small_run, steps_of
from tests.support.windows import predictable_windows

NAME = HOSTILE[1]


@pytest.fixture(scope="module")
def further():
    model = tiny_transformer()
    few = predictable_windows(model, range(D_VOCAB), seed=77, n_windows=2)
    return {"c": predictable_windows(model, range(10, 30), seed=76), NAME: few}


@pytest.fixture(scope="module")
def run(further, tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("also") / "run", also={"c": (further[NAME], further["c"]), **further})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("plain") / "run")


def test_every_step_measures_them(run, further):
    model = tiny_transformer()
    for step in run.history:
        with dissect.ablated(model, run.mask(step.step)):
            for name, windows in further.items():
                assert step.metrics[name] == evaluate(model, windows, seed=3, progress=False)
    base, last = (run.history[k].metrics["c"]["top1"] for k in (0, -1))
    assert run.drops("c")[0] == 0 < run.drops("c")[-1] == 1 - last / base
    assert run.intervals("c")[-1][0] <= run.drops("c")[-1] <= run.intervals("c")[-1][1]
    assert run.intervals(NAME)[-1] is None  # eight documents are too few


def test_they_change_nothing_else(run, plain):
    assert all((run.pruned_at[site] == at).all() for site, at in plain.pruned_at.items())
    for with_further, without in zip(run.history, plain.history, strict=True):
        assert {"forget": with_further.metrics["forget"], "retain": with_further.metrics["retain"]} == without.metrics
        assert without.intervals.items() <= with_further.intervals.items()
    assert run.stats("forget").to_bytes() == plain.stats("forget").to_bytes()
    assert not list(run.path.glob("stats-also*"))


def test_a_run_without_them_is_recorded_as_before(plain):
    assert "also" not in json.loads((plain.path / "config.json").read_text())["config"]
    assert {file.name for file in plain.path.glob("*.safetensors")} == {
        "pruned_at.safetensors",
        *(f"{kind}-{side}.safetensors" for kind in ("stats", "documents") for side in ("forget", "retain")),
    }
    assert run_name(PruneConfig("m", "a", "b")) == "m_mlp_abs_score_a-vs-b_f02e03ee"  # that of version 0.1.0
    assert run_name(PruneConfig("m", "a", "b", also=("c",))) != run_name(PruneConfig("m", "a", "b"))


def test_a_run_that_was_killed_ends_with_the_same_files(run, further, tmp_path, monkeypatch):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, "history.jsonl", 3)
        with pytest.raises(Killed):
            small_run(path, also=further)
    assert len(Run.load(path).history) < 4
    assert files_of(small_run(path, also=further).path) == files_of(run.path)
    with pytest.raises(DissectError, match="another configuration"):
        small_run(path)


def test_it_is_repeated_with_its_windows(run, further, tmp_path):
    given = {"model": tiny_transformer(), **guessable_sides(), "out": tmp_path / "again", "progress": False}
    assert not rerun(run, also=further, **given).differences
    with pytest.raises(DissectError, match=r"the c data of .* were given as Windows.*also=\{'c': test\}"):
        rerun(run, **given)


def test_a_corpus_of_any_name_is_compared():
    """Also of one that is called as something that is not compared, or that follows from something else."""
    for name in ("seconds", "sites", "a.digests.b"):
        there, here = (replace(steps_of([1], [1])[0], metrics={name: {"top1": value}}) for value in (0.5, 0.25))
        (found,) = _line_differences(there, here, TOLERANCES["float32"])
        assert (found.what, found.size) == (f"metrics.{name}.top1", 0.25)


def test_their_documents_are_checked(run, tmp_path):
    assert len(run.documents("c").sums) == 16
    assert len(run.documents(NAME).sums) == 8
    lines = (run.path / "history.jsonl").read_text().splitlines()
    assert {"documents-also-1", "documents-also-2"} <= set(json.loads(lines[0])["digests"])
    with pytest.raises(DissectError, match=r"unknown side 'd'.*known: forget, retain, c"):
        run.drops("d")


def test_what_was_not_measured_is_noticed(run, plain, tmp_path):
    """A history of another run, whose lines are intact, beside a configuration with further corpora."""
    for name in ("pruned_at.safetensors", "history.jsonl"):
        (tmp_path / name).write_bytes((plain.path / name).read_bytes())
    (tmp_path / "config.json").write_bytes((run.path / "config.json").read_bytes())
    with pytest.raises(DissectError, match="it lacks what was measured on 'c'"):
        Run.load(tmp_path)


def test_by_name_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(fill(tmp_path))
    run = run_of(tmp_path, "run", also=("more=./prose", "./code"))
    assert list(run.history[0].metrics) == ["forget", "retain", "more", "./code"]
    assert run.history[1].metrics["more"] == run.history[1].metrics["retain"]
    command = "prune --model ./model --forget ./code --retain ./prose --also more=./prose ./code --out again".split()
    command += "--fraction 0.1 --steps 2 --tokens 60 --context 16 --dtype float32".split()
    assert main(command) == 0
    assert "more drop there" in capsys.readouterr().out
    assert Run.load("again").history[-1].metrics == run.history[-1].metrics
    assert main(command) == 0  # it is finished: what is there now is compared with what it was made of
    for path in (tmp_path / "prose").iterdir():
        path.write_text(path.read_text().replace("cat", "dog"))
    assert main(command) == 2
    assert "data.retain" in capsys.readouterr().err


def test_only_a_further_corpus_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path))
    (tmp_path / "c").mkdir()
    for number in range(40):
        (tmp_path / "c" / f"{number}.txt").write_text(f"{number} the cat and the dog " * 4)
    run_of(tmp_path, "run", also=("c",))
    for path in (tmp_path / "c").iterdir():
        path.write_text(path.read_text().replace("cat", "cow"))
    with pytest.raises(DissectError, match=r"began with another data.*data\.c\.test"):
        run_of(tmp_path, "run", also=("c",))


def test_tables_and_figures_show_them(run, plain, tmp_path):
    step = run.summary().step
    assert run.summary().also == {name: run.drops(name)[step] for name in ("c", NAME)}
    table = summary_table([run, plain])
    assert table["c drop"].tolist()[0] == pytest.approx(100 * run.drops("c")[step], abs=0.05)
    assert table["c drop"].isna().tolist() == [False, True]
    columns, rows = summary_columns([run, plain]), summary_rows([run, plain])
    assert {len(row) for row in rows} == {len(columns)}
    assert rows[0][-2].startswith(f"{100 * run.drops('c')[step]:.1f}% [")
    assert rows[1][-2:] == ("", "")
    curves = {line.name: line for line in views.curves([run, plain]).data}
    thin = next(line for name, line in curves.items() if name.endswith(": c"))
    assert list(thin.y) == pytest.approx([100 * drop for drop in run.drops("c")])
    assert list(thin.x) == pytest.approx([100 * drop for drop in run.drops("retain")])
    page = write_report([run, plain], tmp_path / "page.html").read_text()
    assert NAME not in page
    assert "c drop there" in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_they_are_in_what_a_run_costs():
    shape, config = SHAPES["opt-125m"], PruneConfig("opt-125m", "a", "b", selector="random")
    with_two = PruneConfig("opt-125m", "a", "b", selector="random", also=("c", "d"))
    assert run_operations(with_two, shape) == pytest.approx(2 * run_operations(config, shape))


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ("python", "also must be a list of corpora, or a dict of them by name, got str 'python'"),
        (["sotu", "retain"], "also: the name retain is taken; give the corpus another, NAME=CORPUS"),
        (["difference=sotu"], "the name difference is taken"),
        (["sotu", "sotu=wiki-en"], "also names 'sotu' twice"),
        (["=sotu"], "must be a corpus or NAME=CORPUS"),
        (["c="], "must be a corpus or NAME=CORPUS"),
        ([" "], "a corpus of also must be text"),
        (["c=stou"], "unknown corpus 'stou'; did you mean 'sotu'"),
        ({"a=b": "sotu"}, "a name of also must be text without '=', got 'a=b'"),
        ({"c": 3}, r"a corpus is a name or a \(train, test\) pair of Windows, got 3"),
    ],
)
def test_bad_input(also, message, tmp_path):
    with pytest.raises(DissectError, match=message):
        small_run(tmp_path / "run", also=also)
    assert not (tmp_path / "run").exists()


def test_names_and_corpora_in_one_text():
    assert parse_also(["c++=torch-headers", "sotu", "x=./a=b.txt"]) == {
        "c++": "torch-headers",
        "sotu": "sotu",
        "x": "./a=b.txt",
    }
    corpora = {"c++": "torch-headers", "sotu": "sotu"}
    assert as_also(corpora) == ("c++=torch-headers", "sotu")
    assert further_corpora(corpora) == parse_also(as_also(corpora)) == corpora
