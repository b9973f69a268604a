"""Intervals: that they cover the truth as often as they say, pair what is paired, and follow the documents."""

from __future__ import annotations

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import dissect
from dissect import DissectError, Run, Windows
from dissect.backend.targets import targets_of
from dissect.evaluation.documents import DocumentSums
from dissect.evaluation.evaluate import evaluate_documents
from dissect.evaluation.intervals import FEWEST, NAMES, intervals
from dissect.runs.seeds import by_seed
from dissect.runs.tables import summary_rows
from dissect.views import compare, curves, dashboard, perplexity
from dissect.views.bands import hull
from tests.support.runs import small_run
from tests.support.windows import random_windows


def sums_of(counts, top1, loss=None):
    """Sums of documents with these predictions and these right answers."""
    n, right = (torch.tensor(np.asarray(each), dtype=torch.float64) for each in (counts, top1))
    losses = right if loss is None else torch.tensor(np.asarray(loss), dtype=torch.float64)
    return DocumentSums(("top1", "top10", "loss"), torch.stack([right, right, losses], 1), torch.stack([n] * 3, 1))


def drawn(generator, documents, accuracy, drop):
    """Documents of unequal length and difficulty, before and after a loss; the truths are `accuracy` and `drop`."""
    counts = generator.integers(5, 200, documents)
    right = generator.binomial(counts, generator.beta(10 * accuracy, 10 * (1 - accuracy), documents))
    kept = generator.binomial(right, generator.beta(10 * (1 - drop), 10 * drop, documents))
    return sums_of(counts, kept), sums_of(counts, right)


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator, trials = np.random.default_rng(0), 300
    truths = {"top1": 0.6 * 0.7, "drop": 0.3, "difference": 0.3 - 0.1}
    hits = dict.fromkeys(truths, 0)
    for _ in range(trials):
        forget, retain = drawn(generator, 60, 0.6, 0.3), drawn(generator, 80, 0.4, 0.1)
        sides = {"forget": forget, "retain": retain}
        found = intervals(*({side: pair[when] for side, pair in sides.items()} for when in (0, 1)))
        ends = {**found["forget"], "difference": found["difference"]}
        for name, truth in truths.items():
            hits[name] += ends[name][0] <= truth <= ends[name][1]
    for name, count in hits.items():
        # Five standard deviations of a binomial count; half or double the width is 30 away.
        assert abs(count / trials - 0.94) < 5 * (0.95 * 0.05 / trials) ** 0.5, (name, count)


def test_intervals_are_those_of_resampled_documents():
    """Against a plain loop over resamples, which draws others."""
    generator = np.random.default_rng(1)
    now, base = drawn(generator, 40, 0.6, 0.3)
    found = intervals({"forget": now}, {"forget": base})["forget"]
    sums, counts, before = now.sums[:, 0].numpy(), now.counts[:, 0].numpy(), base.sums[:, 0].numpy()
    draws = [generator.integers(0, 40, 40) for _ in range(4_000)]
    by_hand = {
        "top1": [sums[draw].sum() / counts[draw].sum() for draw in draws],
        "drop": [1 - sums[draw].sum() / before[draw].sum() for draw in draws],
        "loss_rise": [(sums[draw].sum() - before[draw].sum()) / counts[draw].sum() for draw in draws],
    }
    for name, values in by_hand.items():
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[name] == pytest.approx([low, high], abs=0.1 * (high - low))
    assert list(found) == list(NAMES)


def test_what_is_the_same_on_every_document_has_lost_exactly_nothing():
    """As documents vary much here, an interval that did not pair them would be wide."""
    _, base = drawn(np.random.default_rng(2), 30, 0.5, 0.5)
    found = intervals({"forget": base, "retain": base}, {"forget": base, "retain": base})
    for side in ("forget", "retain"):
        assert found[side]["drop"] == found[side]["loss_rise"] == [0, 0]
        assert found[side]["top1"][1] - found[side]["top1"][0] > 0.05
    assert found["difference"] == [0, 0]


def test_sides_are_drawn_independently():
    """The same numbers on both sides: drawn together, their difference would be exactly 0."""
    now, base = drawn(np.random.default_rng(3), 30, 0.6, 0.4)
    low, high = intervals({"forget": now, "retain": now}, {"forget": base, "retain": base})["difference"]
    assert low < -0.02 < 0.02 < high


def test_few_documents_have_no_interval():
    generator = np.random.default_rng(4)
    enough, few = drawn(generator, FEWEST, 0.6, 0.3), drawn(generator, FEWEST - 1, 0.6, 0.3)
    found = intervals({"forget": few[0], "retain": enough[0]}, {"forget": few[1], "retain": enough[1]})
    assert found["forget"] is found["difference"] is None
    assert found["retain"]["drop"][0] < found["retain"]["drop"][1]
    assert intervals({"forget": few[0]}, {"forget": few[1]}) == {"forget": None, "difference": None}


def test_a_model_that_knew_nothing_has_nothing_to_lose():
    nothing = sums_of([5] * FEWEST, [0] * FEWEST)
    assert intervals({"forget": nothing}, {"forget": nothing})["forget"]["drop"] == [0, 0]


# Sums by document


@pytest.mark.parametrize("batch_size", [1, 4])
def test_sums_of_a_document_are_its_own_evaluation(model, batch_size):
    """Each document alone, by what is kept; documents cross windows here."""
    tokens = random_windows(5, 13).tokens
    documents = (torch.arange(tokens.numel()) // 9 * 10).reshape(tokens.shape)  # 0, 10, 20, ...
    found = evaluate_documents(model, Windows.from_tokens(tokens, documents=documents), batch_size=batch_size)
    for row, document in enumerate(documents.unique().tolist()):
        keep = documents == document
        keep[:, 0] = False
        text = torch.ones_like(tokens)  # all of it, also where the first two tokens are the same
        alone = dissect.evaluate(model, Windows.from_tokens(tokens, keep, attention_mask=text))
        assert found.counts[row, 0] == alone["n"] == keep.sum()
        for name in ("top1", "top10", "loss"):
            column = found.names.index(name)
            assert found.sums[row, column] / alone["n"] == pytest.approx(alone[name], rel=1e-6)
    assert len(found.sums) == row + 1


def test_metrics_do_not_depend_on_the_documents(model, windows):
    one = Windows.from_tokens(windows.tokens, documents=torch.zeros_like(windows.tokens))
    assert dissect.evaluate(model, one) == pytest.approx(dissect.evaluate(model, windows), rel=1e-12)
    assert one.tokens_fingerprint == windows.tokens_fingerprint
    assert len(evaluate_documents(model, windows).sums) == len(windows)  # by default a window is a document
    assert len(evaluate_documents(model, one).sums) == 1


def test_documents_follow_their_windows():
    documents = torch.arange(7)[:, None].expand(7, 4) + torch.tensor([0, 0, 1, 1])
    windows = Windows.from_tokens(torch.zeros(7, 4, dtype=torch.int64), documents=documents)
    assert torch.equal(windows[2:5].documents, documents[2:5])
    assert torch.equal(torch.cat([batch.documents for batch in windows.batches(3)]), documents)


def test_a_masked_model_is_asked_of_the_document_where_it_stands():
    tokenizer = SimpleNamespace(mask_token_id=3, all_special_ids=[0, 1, 2, 3])
    cfg = SimpleNamespace(model_name="masked", d_vocab=50, n_ctx=64, original_architecture="RobertaForMaskedLM")
    masked = SimpleNamespace(tokenizer=tokenizer, cfg=cfg, hook_dict={}, mlm_head=None, encoder_output=None)
    tokens = torch.randint(4, 50, (4, 20), generator=torch.Generator().manual_seed(0))
    windows = Windows.from_tokens(tokens, documents=torch.arange(80).reshape(4, 20))
    assert torch.equal(targets_of(masked, windows).documents, windows.documents)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (torch.zeros(2, 3), r"documents must be integers of tokens' shape \(2, 3\), got torch\.float32"),
        (torch.zeros(3, 2, dtype=torch.int64), r"of shape \(3, 2\)"),
        (torch.full((2, 3), -1), "documents must be numbered from 0 on, got -1"),
    ],
)
def test_documents_that_do_not_fit(documents, message):
    with pytest.raises(DissectError, match=message):
        Windows.from_tokens(torch.zeros(2, 3, dtype=torch.int64), documents=documents)


def test_sums_are_read_back_as_they_were(tmp_path):
    sums = drawn(np.random.default_rng(5), 12, 0.5, 0.2)[0]
    sums.save(tmp_path / "sums.safetensors")
    again = DocumentSums.load(tmp_path / "sums.safetensors")
    assert again.metrics() == sums.metrics()
    for name in sums.names:
        for part in ("sums", "counts"):
            columns = [getattr(each, part)[:, each.names.index(name)] for each in (sums, again)]
            assert torch.equal(*columns)


# Runs and figures


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("intervals") / "run")


def test_history_has_the_intervals_of_its_steps(run):
    assert run.history[0].intervals["difference"] == [0, 0]
    for side in ("forget", "retain"):
        assert len(run.documents(side).sums) == 16
        assert run.documents(side).metrics() == run.history[0].metrics[side]
        for name in ("top1", "top10", "loss"):
            for line, (low, high) in zip(run.history, run.intervals(side, name), strict=True):
                assert low < line.metrics[side][name] < high
        for drop, (low, high) in zip(run.drops(side), run.intervals(side), strict=True):
            assert low <= drop <= high
    summary = run.summary()
    assert list(summary.interval) == run.history[summary.step].intervals["difference"]
    assert summary.forget_interval == run.intervals("forget")[summary.step]


def test_the_summary_shows_them(run):
    low, high = (100 * end for end in run.summary().interval)
    assert summary_rows([run])[0][1].endswith(f" points [{low:.1f}, {high:.1f}]")


def test_where_there_are_too_few_documents_there_are_none(run):
    few = dataclasses.replace(run, history=[dataclasses.replace(step, intervals=NONE) for step in run.history])
    assert few.summary().difference == run.summary().difference
    assert few.summary().interval is None
    assert few.intervals("forget") == [None] * 5
    assert summary_rows([few])[0][1].endswith(" points")
    assert len(curves([few]).data) == 2
    assert "bands" not in curves([few]).layout.title.subtitle.text


NONE = {"forget": None, "retain": None, "difference": None}


def test_document_sums_that_are_gone_are_named(run, tmp_path):
    folder = shutil.copytree(run.path, tmp_path / "copy")
    (folder / "documents-forget.safetensors").unlink()
    with pytest.raises(DissectError, match=r"documents-forget\.safetensors is missing"):
        Run.load(folder).documents("forget")


def inside(x, y, shape):
    """True where a point is in a convex shape drawn counter-clockwise."""
    edges = zip(shape, [*shape[1:], shape[0]], strict=True)
    return all((bx - ax) * (y - ay) - (by - ay) * (x - ax) >= -1e-9 for (ax, ay), (bx, by) in edges)


def shapes_of(trace):
    """The closed shapes of a band, each without its last point, which is its first."""
    points, shapes = list(zip(trace.x, trace.y, strict=True)), [[]]
    for point in points:
        shapes.append([]) if point[0] is None else shapes[-1].append(point)
    assert all(shape[0] == shape[-1] for shape in shapes)
    return [shape[:-1] for shape in shapes]


@pytest.mark.parametrize("draw", [lambda run: curves([run]), lambda run: dashboard(run)])
def test_a_band_holds_the_intervals_of_every_step(run, draw):
    figure = draw(run)
    (band,) = (trace for trace in figure.data if trace.name == f"{run.label}, 95% interval")
    (curve,) = (trace for trace in figure.data if trace.name == run.label)
    assert band.legendgroup == curve.legendgroup
    assert band.hoverinfo == "skip"
    assert not band.showlegend
    shapes = shapes_of(band)
    assert len(shapes) == 4
    for step, shape in enumerate(shapes):
        for end in (step, step + 1):
            for x in run.intervals("retain")[end]:
                for y in run.intervals("forget")[end]:
                    assert inside(100 * x, 100 * y, shape)
        assert not inside(1000, 1000, shape)
    assert "bands: 95% interval" in figure.layout.title.subtitle.text


def test_perplexity_has_bands_of_the_losses_rise(run):
    band = next(trace for trace in perplexity([run]).data if trace.name == f"{run.label}, 95% interval")
    last = run.intervals("retain", "loss_rise")[-1]
    xs = [x for x in band.x if x is not None]
    assert any(x == pytest.approx(np.exp(last[1])) for x in xs)
    assert min(xs) > 0


def test_a_hull_is_convex_and_holds_all_points():
    points = [(0, 0), (2, 0), (2, 1), (0, 1), (1, 0.5), (4, 3), (5, 3), (5, 5), (4, 5)]
    shape = hull(points)
    assert all(inside(x, y, shape) for x, y in points)
    assert (1, 0.5) not in shape
    assert len(hull([(0, 0), (1, 1), (2, 2)])) < 3


# Seeds


@pytest.fixture(scope="module")
def baselines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    return [small_run(folder / str(seed), selector="random", seed=seed) for seed in (3, 4, 5)]


def test_random_runs_of_several_seeds_are_one(run, baselines):
    assert by_seed([run, *baselines]) == [[run], baselines]
    assert by_seed([run, run]) == [[run], [run]]  # a selective run is itself
    other = Run(baselines[0].path, dissect.PruneConfig(**{**baselines[0].record["config"], "steps": 9}), {})
    assert len(by_seed([*baselines, other])) == 2


@pytest.mark.parametrize("draw", [curves, lambda runs: dashboard(*runs)])
def test_their_curve_is_the_mean_and_their_band_from_the_smallest_to_the_largest(run, baselines, draw):
    figure = draw([run, *baselines])
    drops = 100 * np.array([each.drops("forget") for each in baselines])
    curve = next(trace for trace in figure.data if trace.name == "mlp random, 3 seeds")
    assert list(curve.y) == pytest.approx(drops.mean(0))
    band = next(trace for trace in figure.data if trace.name.startswith("mlp random, 3 seeds, smallest"))
    ends = [y for y in band.y if y is not None]
    assert (min(ends), max(ends)) == pytest.approx((drops.min(), drops.max()))
    assert len(figure.layout.shapes) in (0, 2)  # a ring a line


def test_tables_show_mean_and_standard_deviation(run, baselines):
    differences = [100 * each.summary().difference for each in baselines]
    expected = f"{np.mean(differences):.1f} ± {np.std(differences, ddof=1):.1f}"
    rows = summary_rows([run, *baselines])
    assert len(rows) == 2
    assert rows[1][:2] == ("mlp random, 3 seeds", f"{expected} points")
    table = dissect.table_2([run, *baselines])
    assert table["mlp random"].iloc[0].startswith(f"{expected} [")
    low, high = (100 * end for end in run.summary().interval)
    assert f" ({low:.1f} to {high:.1f}) [" in table["mlp"].iloc[0]
    bars = compare([run, *baselines]).data[0]
    assert bars.x[1] == pytest.approx(np.mean(differences))
    assert bars.error_x.array[1] == bars.error_x.arrayminus[1] == pytest.approx(np.std(differences, ddof=1))
    assert bars.x[0] + bars.error_x.array[0] == pytest.approx(high)
