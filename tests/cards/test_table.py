"""The table of neurons: every unit once, with the numbers of its scores and the step of its run."""

from __future__ import annotations

import pytest
import torch

import dissect
from dissect import DissectError, Scores, Unit
from dissect.scoring.scores import SiteScores
from tests.support.models import N_HEADS, tiny_transformer
from tests.support.runs import small_run
from tests.support.windows import random_windows


@pytest.fixture(scope="module")
def scores():
    model = tiny_transformer()
    stats = [
        dissect.collect(model, random_windows(seed=seed), sites=["mlp", "value", "head"], progress=False)
        for seed in (1, 2)
    ]
    return dissect.score(forget=stats[0], retain=stats[1])


def test_every_unit_is_there_once(scores):
    table = dissect.neurons(scores)
    assert list(table.columns) == "site layer head expert unit forget retain score rank step".split()
    assert len(table) == sum(site.values.numel() for site in scores.values())
    units = dissect.units_of(table)
    assert len(set(units)) == len(units)
    for unit, row in zip(units, table.itertuples(), strict=True):
        site = scores[unit.site]
        assert row.score == site.values[unit.place].item()
        assert (row.forget, row.retain) == (site.forget[unit.place].item(), site.retain[unit.place].item())
    assert table["score"].is_monotonic_decreasing
    assert table["step"].isna().all()


def test_ranks_are_the_order_of_pruning(scores):
    table = dissect.neurons(scores)
    for site in scores:
        first = table[(table["site"] == site) & (table["rank"] <= 3)]
        assert {unit.place for unit in dissect.units_of(first)} == set(scores[site].top(count=3).units(site))


def test_ties_rank_by_index(scores):
    tied = scores["mlp"].values.clone().fill_(1.0)
    site = SiteScores("mlp", "abs", 1e-3, tied, tied, tied)
    assert dissect.neurons(site)["rank"].tolist() == list(range(1, 61))
    assert [unit.place for unit in dissect.units_of(dissect.neurons(site).head(2))] == [(0, 0), (0, 1)]


def test_places(scores):
    table = dissect.neurons(scores)
    assert table[table["site"] == "mlp"]["head"].isna().all()
    assert table[table["site"] == "head"]["unit"].isna().all()
    assert set(table[table["site"] == "head"]["head"]) == set(range(N_HEADS))
    assert set(table[table["site"] == "value"]["head"]) == {0, 1}


def test_experts_have_a_column_of_their_own():
    values = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    sites = {"expert": values.sum(-1), "expert_mlp": values}
    scores = Scores({name: SiteScores(name, "abs", 0.0, *(each,) * 3) for name, each in sites.items()})
    table = dissect.neurons(scores)
    assert table["head"].isna().all()
    assert set(table["expert"]) == {0, 1, 2}
    assert table["unit"].isna().sum() == 2 * 3
    assert len(set(dissect.units_of(table))) == 2 * 3 * (1 + 4)
    for unit, score in zip(dissect.units_of(table), table["score"], strict=True):
        assert score == sites[unit.site][unit.place].item()


def test_steps_are_those_of_the_run(tmp_path):
    run = small_run(tmp_path / "run")
    table = dissect.neurons(run.scores(), run)
    for unit, step in zip(dissect.units_of(table), table["step"], strict=True):
        assert run.pruned_at["mlp"][unit.place].item() == (-1 if step is table["step"].array.dtype.na_value else step)
    assert table["step"].notna().sum() == len(run.mask())
    small = {"mlp": SiteScores("mlp", "abs", 0.0, *(torch.rand(2, 5).double(),) * 3)}
    with pytest.raises(DissectError, match="give the scores of that model"):
        dissect.neurons(Scores(small), run)


def test_units_are_checked():
    from dissect.backend.units import as_unit, as_units

    cfg = tiny_transformer().cfg
    assert as_unit(("pre_out", 1, 2, 3), cfg) == Unit("pre_out", 1, (2, 3))
    for value, message in [
        (("mlp", 3, 0), "outside"),
        (("mlp", 0, -1), "outside"),
        (("pre_out", 0, 1), "outside"),
        (("mpl", 0, 1), "unknown site 'mpl'"),
        (("mlp", 0), "a unit is"),
        ((0, 1, 2), "a unit is"),
    ]:
        with pytest.raises(DissectError, match=message):
            as_unit(value, cfg)
    with pytest.raises(DissectError, match="no unit given"):
        as_units([], cfg)
    for single in (Unit("mlp", 0, (1,)), ("mlp", 0, 1)):
        with pytest.raises(DissectError, match="put it into a list"):
            as_units(single, cfg)
