"""Runs on mixtures of experts: what was planted is found and pruned, and views, cards and the explorer show it."""

from __future__ import annotations

import pytest
import torch

import dissect
from dissect import Windows
from dissect.cards.directions import direction
from dissect.data.token_text import token_text
from dissect.views import dashboard, importance, pruned_by_layer, specialization
from tests.support import tiny
from tests.support.mixtures import EXPERTS, LAYERS, PLANTED_EXPERT, PLANTED_NEURON, TARGET, WIDTH, planted
from tests.support.windows import random_windows

PLANTED = {"expert": PLANTED_EXPERT, "expert_mlp": PLANTED_NEURON}
UNITS = {"expert": LAYERS * EXPERTS, "expert_mlp": LAYERS * EXPERTS * WIDTH}
HALF = tiny.VOCAB // 2


@pytest.fixture(scope="module", params=PLANTED)
def site(request):
    return request.param


@pytest.fixture(scope="module")
def model(site):
    return planted(site)


def side_of(model, first, seed):
    """Windows of one half of the vocabulary, in which every second token is the model's best guess in that half."""
    tokens = random_windows(4, 13, seed=seed, d_vocab=HALF).tokens + first
    for position in range(1, tokens.shape[1], 2):
        guesses = model(tokens[:, :position])[:, -1, first : first + HALF]
        tokens[:, position] = guesses.argmax(-1) + first
    return Windows.from_tokens(tokens)


@pytest.fixture(scope="module")
def sides(model):
    firsts = {"forget": 0, "retain": HALF}
    return {name: tuple(side_of(model, first, seed) for seed in (1, 2)) for name, first in firsts.items()}


@pytest.fixture(scope="module")
def run(model, site, sides, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"site": site, "fraction": 1 / UNITS[site], "steps": 2, "progress": False}
    return dissect.prune(model, **sides, out=out, **options)


def test_what_was_planted_is_pruned_first(run, site):
    assert run.mask(1).units(site) == [PLANTED[site]]
    assert len(run.mask(2)) == 2
    base, first = (run.history[step].metrics for step in (0, 1))
    assert first["forget"]["loss"] > base["forget"]["loss"] + 0.5
    assert first["forget"]["top1"] < base["forget"]["top1"] - 0.1
    assert first["retain"]["loss"] == pytest.approx(base["retain"]["loss"], abs=1e-3)


def test_it_is_not_found_where_nothing_was_planted(site, sides):
    model = planted(None)
    forget, retain = (dissect.collect(model, sides[side][0], sites=site, progress=False) for side in sides)
    best = dissect.score(forget=forget, retain=retain)[site].top(count=1)
    assert best.units(site) != [PLANTED[site]]


def test_it_is_not_found_at_random(model, site, sides, tmp_path):
    options = {"site": site, "fraction": 1 / UNITS[site], "steps": 1, "seed": 1, "progress": False}
    found = dissect.prune(model, **sides, out=tmp_path / "run", selector="random", **options)
    assert len(found.mask()) == 1
    assert found.mask().units(site) != [PLANTED[site]]


def test_the_pruned_model_is_the_same_by_hooks_and_in_the_weights(model, run, sides):
    tokens = sides["forget"][1].tokens
    with dissect.ablated(model, run.mask()):
        expected = model(tokens)
    edit = dissect.bake(model, run.mask())
    torch.testing.assert_close(model(tokens), expected)
    edit.restore()
    assert not torch.allclose(model(tokens), expected, atol=1e-2)


def test_figures_show_the_planted_unit(run, site):
    scores = run.scores()
    place = PLANTED[site]
    number = place[1] * (1 if site == "expert" else WIDTH) + (place[2] if site == "expert_mlp" else 0)
    drawn = importance(scores[site], fraction=1 / UNITS[site])
    dots = next(trace for trace in drawn.data if trace.name == "highest scores")
    assert [tuple(map(int, dot[:2])) for dot in dots.customdata] == [(place[0], number)]
    cells = next(trace for trace in specialization(scores).data if trace.name == site)
    assert cells.customdata[place[0]][0] == number  # the highest of its layer comes first
    heat = next(trace for trace in pruned_by_layer(run).data if trace.name == site)
    assert [row[1] for row in heat.customdata] == [0, 1]
    assert dashboard(run).data


def test_the_table_and_the_cards_show_it(model, run, site, sides):
    table = dissect.neurons(run.scores(), run)
    first = dissect.units_of(table.head(1))
    assert [unit.place for unit in first] == [PLANTED[site]]
    assert (table["expert"].iloc[0], table["step"].iloc[0]) == (PLANTED[site][1], 1)
    (card,) = dissect.neuron_cards(model, first, sides["forget"][0], sides["retain"][0], progress=False)
    stats = dissect.collect(model, sides["forget"][0], sites=site, progress=False)[site]
    assert card.forget.mean_abs == pytest.approx((stats["sum_abs"][PLANTED[site]] / stats.count).item(), rel=1e-5)
    assert card.forget_effect.change > 0.3
    assert abs(card.retain_effect.change) < 0.01
    page = card._repr_html_()
    if site == "expert":
        assert card.direction is None
        assert "expert 2, layer 1" in page
        assert "writes in many directions" in page
    else:
        assert card.direction.promoted
        assert "expert_mlp neuron 7 of expert 1, layer 1" in page
        assert "writes in many directions" not in page


def test_the_neuron_promotes_its_target():
    model = planted("expert_mlp")
    first = [direction(model, dissect.Unit("expert_mlp", 1, (1, unit)), 1).promoted[0].text for unit in (7, 8)]
    assert first[0] == token_text(None, TARGET) != first[1]


def test_a_report_is_written(run, tmp_path):
    page = dissect.write_report([run], tmp_path / "report.html").read_text()
    assert ">expert<" in page


def test_the_explorer_opens_on_it(model, site, sides):
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed (extra notebook)")
    explorer = dissect.explore(model, **sides)
    try:
        assert "mlp" not in explorer.site.options
        explorer.site.value = site
        explorer.fraction.value = {"expert": 0.14, "expert_mlp": 0.005}[site]
        assert PLANTED[site] in explorer.choice.mask.units(site)
        assert len(explorer.choice.mask) <= 2
        assert explorer.measure().difference > 0.1
    finally:
        explorer.close()
