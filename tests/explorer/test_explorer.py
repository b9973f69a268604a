"""The explorer against `score` and `ablated` by hand: no forward pass on a move, no hook left, text stays text."""

from __future__ import annotations

import base64
import inspect
import itertools
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import dissect
from dissect import DissectError, Mask
from dissect.data.token_text import token_text
from dissect.evaluation.continuation import Reading, encode_prompt, read_on, why_not
from dissect.evaluation.evaluate import evaluate_documents
from dissect.evaluation.intervals import intervals
from dissect.explorer import evaluator, texts
from dissect.explorer.agreement import agreement, compare
from dissect.explorer.choice import Evidence, Settings, choose
from dissect.explorer.evaluator import Evaluator
from dissect.scoring.masks import over_heads
from dissect.scoring.moments import SUMS
from dissect.scoring.stats import Stats, UnitStats
from tests.support.hostile import HOSTILE
from tests.support.models import N_HEADS, SITES, our_hooks, tiny_transformer
from tests.support.runs import guessable_sides
from tests.support.windows import random_windows

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed (extra notebook)")
pytest.importorskip("anywidget", reason="anywidget is not installed (extra notebook)")


@pytest.fixture(scope="module")
def stats():
    model = tiny_transformer()
    return tuple(dissect.collect(model, train, sites=SITES, progress=False) for train, _ in guessable_sides().values())


@pytest.fixture
def evidence(stats):
    return Evidence(*stats)


@pytest.fixture
def explorer(model, stats):
    explorer = dissect.explore(model, **guessable_sides(), stats=stats)
    explorer.fraction.value = 0.1
    yield explorer
    explorer.close()
    assert our_hooks(model) == 0


def logits(model):
    return model(guessable_sides()["forget"][0].tokens)


# The choice


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("direction", ["forget", "retain"])
def test_a_choice_is_the_top_of_the_scores(evidence, stats, site, direction):
    lose, keep = stats if direction == "forget" else stats[::-1]
    expected = dissect.score(forget=lose, retain=keep, importance="rms", eps=0.01, sites=site)[site].top(0.25)
    settings = Settings(site, "rms", 0.01, 0.25, direction=direction)
    found = choose(evidence, settings)
    assert found.mask == expected
    assert found.per_layer == expected.per_layer()
    chosen = found.scores.values[expected[site]]
    assert found.threshold == chosen.min() > found.scores.values[~expected[site]].max()
    other = "retain" if direction == "forget" else "forget"
    assert choose(evidence, Settings(site, "rms", 0.01, 0.25, direction=other)).mask != expected


def test_importances_are_of_the_data_sets_whatever_the_direction(evidence):
    forward, reverse = (choose(evidence, Settings("mlp", direction=side)) for side in ("forget", "retain"))
    for one, other in zip(forward.importances(), reverse.importances(), strict=True):
        assert one.tolist() == other.tolist()
    assert forward.importances()[0].tolist() != forward.importances()[1].tolist()


# Agreement of value and pre_out


def test_a_value_dimension_is_its_group_of_pre_out_dimensions(model):
    value = Mask.of(model, "value", [(0, 1, 2), (2, 0, 5)])
    spread = Mask({"pre_out": over_heads(value["value"], N_HEADS)})
    with dissect.ablated(model, value):
        as_value = logits(model)
    with dissect.ablated(model, spread):
        torch.testing.assert_close(logits(model), as_value)
    other = Mask({"pre_out": spread["pre_out"].flip(1)})
    with dissect.ablated(model, other):
        assert not torch.allclose(logits(model), as_value)


@pytest.mark.parametrize("groups", [2, N_HEADS])
def test_agreement_is_that_of_sets(groups):
    generator = torch.Generator().manual_seed(0)
    value = torch.rand(3, groups, 6, generator=generator) < 0.4
    pre_out = torch.rand(3, N_HEADS, 6, generator=generator) < 0.4
    reached = {
        (layer, head, d)
        for layer, group, d in value.nonzero().tolist()
        for head in range(N_HEADS)
        if head // (N_HEADS // groups) == group
    }
    chosen = {tuple(place) for place in pre_out.nonzero().tolist()}
    found = compare(value, pre_out)
    assert found.jaccard == len(reached & chosen) / len(reached | chosen)
    for counts, part in (
        (found.both, reached & chosen),
        (found.only_value, reached - chosen),
        (found.only_pre_out, chosen - reached),
    ):
        assert list(counts) == [sum(place[0] == layer for place in part) for layer in range(3)]
    assert found.group == N_HEADS // groups
    same = compare(value, over_heads(value, N_HEADS))
    assert (same.jaccard, same.n_both) == (1.0, int(value.sum()) * N_HEADS // groups)
    assert compare(value, ~over_heads(value, N_HEADS)).jaccard == 0


def test_agreement_needs_both_sites(stats):
    part = Evidence(*(Stats({"mlp": side["mlp"], "value": side["value"]}) for side in stats))
    with pytest.raises(DissectError, match="site pre_out"):
        agreement(part, Settings("mlp"))


# Moving a control


def test_moving_a_control_runs_no_model(explorer, model, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a forward pass")

    monkeypatch.setattr(type(model), "forward", never)
    monkeypatch.setattr("dissect.backend.fast.run_blocks", never)
    for name, value in (("site", "pre_out"), ("importance", "std"), ("eps", 1.0), ("fraction", 0.2)):
        before = explorer.mask
        getattr(explorer, name).value = value
        assert explorer.mask != before, name
    explorer.value.value = "mean"
    explorer.direction.value = "retain"
    explorer.strength.value = 0.3
    expected = Settings("pre_out", "std", 1.0, 0.2, "mean", "retain", 0.3)
    assert explorer.settings == expected
    assert explorer.mask == choose(explorer._evaluator.evidence, expected).mask
    with pytest.raises(AssertionError, match="a forward pass"):
        explorer.measure()


def said(explorer):
    return explorer._actions.message.value


def drawn(explorer, pane):
    return getattr(explorer._panes, pane).plot.widget.data


def test_what_is_drawn_is_the_choice(explorer):
    for site, fraction in (("mlp", 0.2), ("mlp", 0.05), ("value", 0.5), ("head", 0.25)):
        explorer.site.value, explorer.fraction.value = site, fraction
        mask = explorer.mask
        forget, retain = explorer.choice.importances()
        chosen, cut = drawn(explorer, "importance")[2:]
        pruned = mask[site].flatten().numpy()
        assert chosen.y == pytest.approx(forget[pruned], rel=1e-5)
        assert chosen.x == pytest.approx(retain[pruned], rel=1e-5)
        assert cut.y == pytest.approx(explorer.choice.threshold * (cut.x + explorer.scores.eps), rel=1e-5)
        bars = drawn(explorer, "layers")[0]
        assert bars.y.tolist() == mask.per_layer()
        assert f"{len(mask)} of {mask.total} {site} units" in explorer._summary.value
        assert drawn(explorer, "importance")[1].y == pytest.approx(forget, rel=1e-5)
    assert [sum(bar.y) for bar in drawn(explorer, "agreement")] == [
        sum(part) for part in (explorer.agreement.both, explorer.agreement.only_value, explorer.agreement.only_pre_out)
    ]


def sent(widget):
    """What a new view of a widget begins with, of its first trace."""
    y = widget._widget_data[0]["y"]
    return np.frombuffer(base64.b64decode(y["bdata"]), y["dtype"]).tolist() if isinstance(y, dict) else list(y)


def test_the_figure_and_its_widget_stay_the_same(explorer):
    explorer.site.value = "pre_out"
    for pane in ("importance", "layers", "agreement", "curve"):
        plot = getattr(explorer._panes, pane).plot
        for kept, shown in zip(plot.figure.data, plot.widget.data, strict=True):
            for attribute in ("x", "y", "name", "customdata"):
                np.testing.assert_array_equal(kept[attribute], shown[attribute])
    plot = explorer._panes.layers.plot
    explorer.fraction.value = 0.5
    assert plot.stale
    assert sent(plot.widget) != plot.figure.data[0].y.tolist()
    assert explorer._repr_mimebundle_()["text/plain"] == repr(explorer)
    assert not plot.stale
    assert sent(plot.widget) == plot.figure.data[0].y.tolist()


def test_what_moved_before_it_was_shown_is_drawn_anew(explorer):
    explorer._repr_mimebundle_()
    before = list(explorer._panes.columns.children)
    explorer._panes.page.shown += 1
    assert all(old is new for old, new in zip(before, explorer._panes.columns.children, strict=True))
    explorer.fraction.value = 0.5
    explorer._panes.page.shown += 1
    assert not any(old is new for old in before for new in explorer._panes.columns.children)
    assert len(drawn(explorer, "importance")[2].x) == len(explorer.mask)
    assert explorer._panes.columns.children[0] is explorer._panes.importance.plot.widget


def states(widget):
    """What the page is sent of a widget and of everything in it."""
    yield widget.get_state()
    for child in getattr(widget, "children", ()):
        yield from states(child)


def texts_only(value):
    """Arrays left out: they travel as they are, everything else as JSON."""
    if isinstance(value, dict):
        return {name: texts_only(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [texts_only(part) for part in value]
    return None if isinstance(value, np.ndarray) and value.dtype != object else value


def test_what_the_page_is_sent_is_json(model, explorer):
    generator = torch.Generator().manual_seed(0)
    sides = [
        Stats({"mlp": UnitStats(100, dict.fromkeys(SUMS, torch.rand(4, 16_000, generator=generator).double()))})
        for _ in range(2)
    ]
    many = dissect.explore(model, **guessable_sides(), stats=tuple(sides))  # drawn as a density, with gaps
    for opened in (explorer, many):
        opened.measure() if opened is explorer else None
        for state in states(opened.widget):
            assert json.dumps(texts_only(state), allow_nan=False, default=str)


def test_a_site_brings_its_own_eps(explorer):
    for site in ("value", "mlp"):
        explorer.site.value = site
        assert explorer.eps.value == dissect.SITES[site].eps


def test_a_refused_choice_is_a_message(explorer):
    explorer.importance.value = "freq"
    assert explorer.mask.sites == ("mlp",)
    assert "not compared" in explorer._panes.agreement.plot.figure.layout.title.text
    explorer.site.value = "pre_out"
    assert "says little there" in explorer._summary.value
    assert explorer._actions.measure.disabled
    for use in (lambda: explorer.mask, explorer.measure, lambda: explorer.try_prompt("x")):
        with pytest.raises(DissectError, match="says little there"):
            use()
    explorer.importance.value = "abs"
    assert "says little there" not in explorer._summary.value
    assert not explorer._actions.measure.disabled
    assert explorer.mask.sites == ("pre_out",)
    explorer.fraction.value = 0.001
    with pytest.raises(DissectError, match="selects no unit"):
        _ = explorer.mask


def test_a_move_among_50_000_units_is_quick(model):
    generator = torch.Generator().manual_seed(0)
    sides = [
        Stats({"mlp": UnitStats(100, dict.fromkeys(SUMS, torch.rand(3, 16_667, generator=generator).double()))})
        for _ in range(2)
    ]
    explorer = dissect.explore(model, **guessable_sides(), stats=tuple(sides))
    seconds = []
    for fraction in explorer.fraction.options[5:15]:
        start = time.process_time()
        explorer.fraction.value = fraction[1]
        seconds.append(time.process_time() - start)
    assert statistics.median(seconds) < 0.1
    assert len(drawn(explorer, "importance")[1].x) == 50_001
    explorer.close()


IMPOSSIBLE = [
    ("fraction", 7, r"unknown fraction 7 .*0\.001.*1\.0\)$"),
    ("fraction", 0.021, r"unknown fraction 0\.021; did you mean '0\.02'"),
    ("fraction", "2%", "unknown fraction '2%'"),
    ("fraction", True, "unknown fraction True"),
    ("site", "mpl", "unknown site 'mpl'; did you mean 'mlp'.*pre_out"),
    ("importance", "rsm", "did you mean 'rms'"),
    ("eps", -1, "unknown eps -1"),
    ("direction", "both", "unknown direction 'both'"),
    ("value", "one", "unknown pruned value 'one'"),
    ("strength", 0.25, "unknown strength 0.25"),
    *((name, None, "unknown .* None") for name in ("fraction", "site", "importance", "eps", "direction", "value")),
    *((name, np.ones(2), "unknown .* array") for name in ("fraction", "site")),
]


@pytest.mark.parametrize(("name", "value", "match"), IMPOSSIBLE)
def test_what_a_control_cannot_be_is_one_line(explorer, name, value, match):
    before, choice = explorer.settings, explorer.choice
    with pytest.raises(DissectError, match=match) as refused:
        getattr(explorer, name).value = value
    assert "\n" not in str(refused.value)
    assert "unknown" in said(explorer)
    assert (explorer.settings, explorer.choice) == (before, choice)
    explorer.fraction.value = 0.2
    assert said(explorer) == ""
    assert explorer.measure().units == len(explorer.mask) == 12


@pytest.mark.parametrize(
    ("name", "value"), [("index", 99), ("index", "x"), ("index", None), ("label", "x"), ("label", 3)]
)
@pytest.mark.parametrize("control", ["site", "fraction"])
def test_nor_by_its_place_or_its_label(explorer, control, name, value):
    before = explorer.settings
    with pytest.raises(DissectError, match=f"unknown {name} of {control}"):
        setattr(getattr(explorer, control), name, value)
    getattr(explorer, control).set_state({name: value})  # as the page does
    assert f"unknown {name} of {control}" in said(explorer)
    assert explorer.settings == before
    getattr(explorer, control).set_state({"index": 1})
    assert explorer.settings != before


def test_numbers_of_any_type_are_taken(explorer):
    explorer.fraction.value = np.float64(0.2)
    explorer.eps.value = 1
    assert (explorer.settings.fraction, explorer.settings.eps) == (0.2, 1.0)
    assert len(explorer.mask) == 12


def test_a_control_is_set_not_replaced(explorer):
    for name in ("fraction", "site", "value"):
        with pytest.raises(DissectError, match=rf"write explorer\.{name}\.value = 0\.2"):
            setattr(explorer, name, 0.2)
    assert explorer.fraction.value == 0.1


def test_a_hostile_value_is_text_in_the_message(explorer):
    with pytest.raises(DissectError):
        explorer.site.value = HOSTILE[0]
    assert HOSTILE[0] not in said(explorer)


# Measuring, and what changes the model


def bake_some(model):
    return dissect.bake(model, Mask.of(model, "mlp", [(0, 1), (1, 2), (2, 3)])).restore


def write_data(model):
    weight = model.blocks[0].mlp.W_out
    before = weight.data.clone()
    weight.data[3] += 1.0  # unseen by torch's own counter of versions

    def restore():
        weight.data[:] = before

    return restore


def swap_parameter(model):
    block, before = model.blocks[1].mlp, model.blocks[1].mlp.W_in
    block.W_in = torch.nn.Parameter(before.flip(0).clone(), requires_grad=False)
    return lambda: setattr(block, "W_in", before)


def ablate_some(model):
    return dissect.ablate(model, Mask.of(model, "mlp", [(0, 1), (1, 2), (2, 3)])).remove


@pytest.mark.parametrize("change", [bake_some, write_data, swap_parameter, ablate_some])
def test_a_changed_model_is_measured_anew(explorer, model, change):
    first, whole = explorer.measure(), explorer.unpruned
    assert explorer.measure() is first
    undo = change(model)
    second = explorer.measure()
    assert second is not first
    assert second.contents != first.contents
    tests = {side: test for side, (_, test) in guessable_sides().items()}
    for side, test in tests.items():
        base = dissect.evaluate(model, test, progress=False)
        assert explorer.unpruned[side] == base != whole[side]
        with dissect.ablated(model, explorer.mask):
            pruned = dissect.evaluate(model, test, progress=False)
        assert getattr(second, side) == pruned
        assert getattr(second, f"{side}_drop") == pytest.approx(1 - pruned["top1"] / base["top1"])
    assert "Points of other states of the model: 1." in said(explorer)
    assert "choices still use its statistics from then" in said(explorer)
    names = [trace.name for trace in drawn(explorer, "curve")]
    assert names == ["no selectivity", "mlp abs, another state of the model", "mlp abs"]
    undo()
    assert explorer.measure() is first
    assert explorer.unpruned == whole
    assert explorer.points == [first, second]
    assert "The model has changed" not in said(explorer)
    assert [trace.name for trace in drawn(explorer, "curve")][1:] == ["mlp abs", "mlp abs, another state of the model"]


def test_a_trial_of_a_changed_model_says_so(reader):
    windows = random_windows(4, 17, d_vocab=300)
    explorer = dissect.explore(reader, windows, random_windows(4, 17, seed=1, d_vocab=300), new_tokens=2)
    explorer.fraction.value = 0.3
    explorer.try_prompt("for i in")
    assert said(explorer) == ""
    with dissect.ablated(reader, Mask.of(reader, "mlp", [(0, 1)])):
        explorer.try_prompt("for i in")
    assert "The model has changed" in said(explorer)
    explorer.close()


@pytest.mark.parametrize(("value", "strength"), [("zero", 1.0), ("mean", 1.0), ("mean", 0.7)])
@pytest.mark.parametrize("direction", ["forget", "retain"])
def test_a_point_is_the_evaluation_by_hand(explorer, model, stats, value, direction, strength):
    explorer.value.value, explorer.direction.value, explorer.fraction.value = value, direction, 0.2
    explorer.strength.value = strength
    point = explorer.measure()
    keep = stats[1] if direction == "forget" else stats[0]
    for side, (_, test) in guessable_sides().items():
        whole = dissect.evaluate(model, test, progress=False)
        with dissect.ablated(model, explorer.mask, value=value, stats=keep, gain=1 - strength):
            pruned = dissect.evaluate(model, test, progress=False)
        assert getattr(point, side) == pruned
        assert explorer.unpruned[side] == whole
        assert getattr(point, f"{side}_drop") == pytest.approx(1 - pruned["top1"] / whole["top1"])
        assert pruned["loss"] != whole["loss"]
    assert (point.units, point.total) == (12, 60)
    assert point.difference == point.forget_drop - point.retain_drop
    line = drawn(explorer, "curve")[1]
    assert list(line.x) == pytest.approx([0, 100 * point.retain_drop])
    assert list(line.y) == pytest.approx([0, 100 * point.forget_drop])


def test_a_point_has_the_intervals_of_its_drops(explorer, model):
    explorer.fraction.value = 0.2
    point = explorer.measure()
    tests = {side: test for side, (_, test) in guessable_sides().items()}
    base = {side: evaluate_documents(model, test, progress=False) for side, test in tests.items()}
    with dissect.ablated(model, explorer.mask):
        found = intervals({side: evaluate_documents(model, test, progress=False) for side, test in tests.items()}, base)
    line = drawn(explorer, "curve")[1]
    for side, error in (("forget", line.error_y), ("retain", line.error_x)):
        low, high = getattr(point, f"{side}_interval")
        assert [low, high] == found[side]["drop"]
        drop = getattr(point, f"{side}_drop")
        assert low < drop < high
        assert list(error.arrayminus) == pytest.approx([0, 100 * (drop - low)])
        assert list(error.array) == pytest.approx([0, 100 * (high - drop)])
        assert f"{100 * drop:.1f}% [{100 * low:.1f}, {100 * high:.1f}] on {side}" in said(explorer)


def test_a_side_of_few_documents_has_no_interval(model):
    few = random_windows(n_windows=4)  # each a document
    explorer = dissect.explore(model, few, few, sites="mlp")
    explorer.fraction.value = 0.2
    point = explorer.measure()
    assert point.forget_interval is None
    assert point.retain_interval is None
    assert not any(drawn(explorer, "curve")[1].error_x.array)
    assert "[" not in said(explorer)


def test_the_unpruned_model_and_each_choice_are_measured_once(explorer, monkeypatch):
    evaluated = []
    real = evaluator.evaluate_documents
    monkeypatch.setattr(
        evaluator, "evaluate_documents", lambda *args, **given: evaluated.append(1) or real(*args, **given)
    )
    first = explorer.measure()
    assert len(evaluated) == 4
    explorer.fraction.value = 0.2
    explorer.measure()
    assert len(evaluated) == 6
    explorer.fraction.value = 0.1
    assert explorer.measure() is first
    assert len(evaluated) == 6
    assert [point.units for point in explorer.points] == [6, 12]
    explorer.value.value = "mean"
    explorer.measure()
    explorer.strength.value = 0.5
    explorer.measure()
    assert "6 of 60 mlp units at 50%" in said(explorer)
    names = ["no selectivity", "mlp abs", "mlp abs, mean ablation", "mlp abs, mean ablation, strength 0.5"]
    assert [trace.name for trace in drawn(explorer, "curve")] == names
    assert [len(trace.x) for trace in drawn(explorer, "curve")] == [2, 3, 2, 2]


def test_plain_windows_serve_both(model):
    windows = random_windows()
    explorer = dissect.explore(model, windows, windows, sites=["mlp", "head"])
    assert explorer.site.options == ("mlp", "head")
    explorer.fraction.value = 0.1
    assert explorer.measure().forget["n"] == windows.n_kept
    explorer.close()


def test_progress_ends_at_the_end(model, evidence):
    sides = {side: test for side, (_, test) in guessable_sides().items()}
    parts = []
    Evaluator(model, evidence, sides, batch_size=1).measure(choose(evidence, Settings("mlp")), parts.append)
    windows = sum(len(side) for side in sides.values())
    assert parts == pytest.approx([(step + 1) / (2 * windows) for step in range(2 * windows)])
    assert our_hooks(model) == 0


@pytest.mark.parametrize("error", [RuntimeError("<script>alert(1)</script>"), KeyboardInterrupt()])
def test_an_error_leaves_a_message_and_no_hook(explorer, model, monkeypatch, error):
    explorer.measure()
    whole = logits(model)
    explorer.fraction.value = 0.3
    seen = []

    def fail(*args, **kwargs):
        seen.append((our_hooks(model) > 0, explorer._actions.measure.disabled, explorer.site.disabled))
        raise error

    monkeypatch.setattr(evaluator, "evaluate_documents", fail)
    explorer._actions.measure.click()
    assert seen == [(True, True, True)]
    assert our_hooks(model) == 0
    assert torch.equal(logits(model), whole)
    assert not explorer._actions.measure.disabled
    message = said(explorer)
    assert "<script" not in message
    assert ("&lt;script&gt;" if isinstance(error, RuntimeError) else "Interrupted") in message
    assert len(explorer.points) == 1
    with pytest.raises(type(error)):
        explorer.measure()
    assert our_hooks(model) == 0


def interrupt_once(function):
    """Ctrl-C instead of the first call."""
    calls = itertools.count()

    def call(*args, **kwargs):
        if next(calls) == 0:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return call


def test_ctrl_c_while_a_move_is_drawn(explorer, monkeypatch):
    """What is chosen and drawn then is where the controls stand, not where they stood."""
    monkeypatch.setattr(explorer._panes.layers, "show", interrupt_once(explorer._panes.layers.show))
    with pytest.raises(KeyboardInterrupt):
        explorer.fraction.value = 0.5
    assert drawn(explorer, "layers")[0].y.sum() == 6
    assert explorer.measure().units == len(explorer.mask) == 30
    assert drawn(explorer, "layers")[0].y.tolist() == explorer.mask.per_layer()


@pytest.mark.parametrize("place", ["figure", "widget"])
def test_ctrl_c_while_a_point_is_drawn(explorer, monkeypatch, place):
    """Measuring again draws it, and others."""
    figure = getattr(explorer._panes.curve.plot, place)
    monkeypatch.setattr(figure, "add_trace", interrupt_once(figure.add_trace))
    with pytest.raises(KeyboardInterrupt):
        explorer.measure()
    explorer.measure()
    explorer.value.value = "mean"
    explorer.measure()
    assert [trace.name for trace in drawn(explorer, "curve")] == ["no selectivity", "mlp abs", "mlp abs, mean ablation"]
    assert [len(trace.x) for trace in explorer._panes.curve.plot.figure.data] == [2, 2, 2]


def test_a_closed_explorer_measures_nothing_more(model, stats):
    explorer = dissect.explore(model, **guessable_sides(), stats=stats)
    explorer.fraction.value = 0.1
    point = explorer.measure()
    explorer.close()
    with pytest.raises(DissectError, match="is closed"):
        explorer.measure()
    assert explorer.points == [point]
    assert our_hooks(model) == 0


# Trying


@pytest.fixture(scope="module")
def reader(folder_of):
    return dissect.load_model(folder_of("llama"), dtype="float32")


def test_a_reading_is_the_models_own(reader):
    ids = encode_prompt(reader, "def f(x):", 8)
    assert ids[0] == reader.tokenizer.bos_token_id
    assert reader.tokenizer.decode(ids[1:]) == "def f(x):"
    found = read_on(reader, ids, 8)
    expected = reader.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, verbose=False)
    assert found.tokens == tuple(token_text(reader.tokenizer, token) for token in expected[0, 1:].tolist())
    losses = reader(expected, return_type="loss", loss_per_token=True)[0]
    assert found.losses == pytest.approx(losses.tolist(), abs=1e-4)
    assert found.n_prompt == len(ids) - 1
    assert found.prompt_loss == pytest.approx(losses[: found.n_prompt].mean().item(), abs=1e-4)


def test_a_trial_is_unpruned_and_pruned(reader):
    windows = random_windows(4, 17, d_vocab=300)
    explorer = dissect.explore(reader, windows, random_windows(4, 17, seed=1, d_vocab=300), new_tokens=6)
    explorer.fraction.value = 0.3
    trial = explorer.try_prompt("for i in")
    ids = encode_prompt(reader, "for i in", 6)
    assert trial.unpruned == read_on(reader, ids, 6)
    with dissect.ablated(reader, explorer.mask):
        assert trial.pruned == read_on(reader, ids, 6)
    assert trial.unpruned != trial.pruned
    assert our_hooks(reader) == 0
    for bad, match in (("", "this one has 0"), ("x " * 300, "1 to 121 tokens")):
        with pytest.raises(DissectError, match=match):
            explorer.try_prompt(bad)
    explorer._actions.prompt.value = "".join(HOSTILE)
    explorer._actions.try_it.click()
    shown = explorer._actions.unpruned.value + explorer._actions.pruned.value + explorer._actions.message.value
    assert len(explorer.trials) == 2
    for tag in ("<script", "<img", "<b ", "</script"):
        assert tag not in shown
    assert "&lt;" in shown
    explorer.close()


def test_texts_are_escaped():
    reading = Reading(HOSTILE, (1.0, 2.0, 3.0, 4.0), 2)
    html = texts.reading(HOSTILE[0], reading) + texts.paragraph(HOSTILE[1])
    for text in HOSTILE[:3]:
        assert text not in html
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in html
    assert "\u202e" not in html


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_a_masked_model_continues_nothing(folder_of, family):
    model = dissect.load_model(folder_of(family), dtype="float32")
    windows = random_windows(8, 33, d_vocab=300)
    explorer = dissect.explore(model, windows, random_windows(8, 33, seed=1, d_vocab=300), new_tokens=4)
    masked = family == "roberta"
    assert bool(why_not(model)) == masked
    assert explorer._actions.try_it.disabled == explorer._actions.prompt.disabled == masked
    assert explorer.measure().units > 0
    assert explorer._actions.try_it.disabled == masked
    if masked:
        with pytest.raises(DissectError, match="does not continue"):
            explorer.try_prompt("x")
    explorer.close()
    assert our_hooks(model) == 0


def test_a_model_without_a_tokenizer_reads_no_prompt(explorer):
    assert explorer._actions.try_it.disabled
    assert "no tokenizer" in explorer._actions.prompt.placeholder


# Opening


def test_bad_arguments_name_the_fix(model, stats, windows):
    for arguments, match in (
        ({"theme": "sepia"}, "light, dark"),
        ({"sites": ["mpl"]}, "did you mean 'mlp'"),
    ):
        with pytest.raises(DissectError, match=match):
            dissect.explore(model, **{"forget": windows, "retain": windows, "stats": stats} | arguments)


def test_sides_are_windows_or_pairs(model, windows):
    for bad in ("python-stdlib", [windows], (windows,)):
        with pytest.raises(DissectError, match=r"retain must be Windows or a \(train, test\) pair.*load_windows"):
            inspect.unwrap(dissect.explore)(model, windows, bad)  # past the type checker of the tests


def test_without_the_extra_it_says_so(model, windows, monkeypatch):
    for name in ("ipywidgets", "anywidget"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DissectError, match=r"ipywidgets and anywidget: pip install \"dissect\[notebook\]\""):
        dissect.explore(model, windows, windows)


def test_importing_needs_no_widgets():
    code = "import sys, dissect; dissect.explore, dissect.Explorer; print('ipywidgets' in sys.modules)"
    found = subprocess.check_output(
        [sys.executable, "-c", code + "; import ipywidgets; print('ipywidgets' in sys.modules)"]
    )
    assert found.split() == [b"False", b"True"]
