"""Figures read back: what is drawn equals the run's numbers. And the page that holds them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from dissect import DissectError
from dissect.views import run_figure, write_report
from dissect.views.report import SUMMARY_COLUMNS, summary_rows
from tests.test_pruning import small_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [small_run(folder / "score"), small_run(folder / "random", selector="random")]


def trace(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_the_curve_is_the_history(runs):
    figure = run_figure(*runs)
    for run in runs:
        base = run.history[0]["metrics"]
        assert all(base[side]["top1"] > 0.4 for side in base)
        drawn = trace(figure, run.label)
        for axis, side in (("x", "retain"), ("y", "forget")):
            expected = [100 * (1 - line["metrics"][side]["top1"] / base[side]["top1"]) for line in run.history]
            assert list(drawn[axis]) == pytest.approx(expected)
    assert list(trace(figure, "no selectivity").x) == list(trace(figure, "no selectivity").y)
    assert runs[0].label != runs[1].label


def test_specialization_counts_every_unit(runs):
    run = runs[0]
    figure = run.figure()
    grid = next(trace for trace in figure.data if trace.type == "heatmap")
    counts, pruned = np.array(grid.z), np.array(grid.customdata)
    assert counts.sum(0).tolist() == [20, 20, 20]
    assert pruned.sum(0).tolist() == run.mask(run.summary().step).per_layer()
    assert (pruned <= counts).all()
    log2 = np.log2(run.scores()["mlp"].values.numpy())
    centres = np.array(grid.y)
    for layer in range(3):
        mean = (counts[:, layer] * centres).sum() / 20
        assert mean == pytest.approx(log2[layer].mean(), abs=centres[1] - centres[0])


def test_a_random_run_shows_its_layers(runs):
    bars = trace(runs[1].figure(), "pruned units")
    assert list(bars.y) == runs[1].mask(runs[1].summary().step or None).per_layer()


def test_the_report_stands_alone(runs, tmp_path):
    page = write_report(runs, tmp_path / "page.html").read_text()
    outside_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href|url)\s*[=(]", outside_scripts)
    for cell in [*SUMMARY_COLUMNS, *summary_rows(runs)[0], runs[0].record["model"]["fingerprint"]]:
        assert cell in page
    assert len(page) < 6_000_000


def test_what_others_wrote_is_text(runs, tmp_path):
    hostile = small_run(tmp_path / "run")
    record = json.loads((hostile.path / "config.json").read_text())
    record["config"]["forget"] = "<script>alert(1)</script>"
    (hostile.path / "config.json").write_text(json.dumps(record))
    page = write_report([type(hostile).load(hostile.path)], tmp_path / "page.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_nothing_to_report(tmp_path):
    with pytest.raises(DissectError, match="at least one run"):
        write_report([], tmp_path / "page.html")
