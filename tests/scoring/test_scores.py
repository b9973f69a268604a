"""Scores and how the highest are chosen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dissect import DissectError, Mask, Stats, UnitStats, score
from dissect.scoring.scores import SiteScores


def stats_with(site, mean_abs, count=10):
    mean_abs = torch.as_tensor(mean_abs, dtype=torch.float64)
    return Stats({site: UnitStats(count, {"sum_abs": mean_abs * count, "positive": mean_abs * count})})


def test_score_is_forget_over_retain_plus_eps():
    scores = score(forget=stats_with("mlp", [[3.0, 1.0]]), retain=stats_with("mlp", [[0.5, 2.0]], 7), eps=0.5)["mlp"]
    assert scores.values.tolist() == [[3.0, 0.4]]
    assert scores.forget.tolist() == [[3.0, 1.0]]
    assert scores.retain.tolist() == [[0.5, 2.0]]
    assert scores.top(0.5).units("mlp") == [(0, 0)]


@pytest.mark.parametrize(("site", "eps"), [("mlp", 1e-3), ("value", 1e-4), ("pre_out", 1e-4), ("head", 1e-4)])
def test_default_eps_is_the_papers(site, eps):
    one = stats_with(site, torch.ones(2, 2, 3))
    assert score(forget=one, retain=one)[site].eps == eps


def test_silent_in_both_scores_zero_without_eps():
    scores = score(forget=stats_with("mlp", [[0.0, 1.0]]), retain=stats_with("mlp", [[0.0, 0.0]]), eps=0)["mlp"]
    assert scores.values.tolist() == [[0.0, float("inf")]]


def test_a_heads_score_is_that_of_its_neurons():
    forget = torch.tensor([[[1.0, 2.0, 9.0, 4.0], [5.0, 5.0, 5.0, 5.0]]])
    stats, ones = stats_with("head", forget), stats_with("head", torch.ones(1, 2, 4))
    for head, expected in (("mean", [[4.0, 5.0]]), ("median", [[3.0, 5.0]])):
        scores = score(forget=stats, retain=ones, eps=0, head=head)["head"]
        assert scores.values.tolist() == expected
        assert scores.top(0.5).units("head") == [(0, 1)]


values = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.5]), min_size=12, max_size=12)


@given(values, st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_exactly_the_highest_are_chosen(values, count, excluded):
    scores = SiteScores("mlp", "abs", 0.0, *[torch.tensor(values, dtype=torch.float64).reshape(3, 4)] * 3)
    exclude = torch.zeros(12, dtype=torch.bool)
    exclude[list(excluded)] = True
    mask = Mask({"mlp": exclude.reshape(3, 4)})
    if count > 12 - len(excluded):
        with pytest.raises(DissectError, match="are left to take"):
            scores.top(count=count, exclude=mask)
        return
    ranked = sorted((i for i in range(12) if i not in excluded), key=lambda i: (-values[i], i))
    assert scores.top(count=count, exclude=mask)["mlp"].flatten().nonzero().flatten().tolist() == sorted(ranked[:count])


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, 2, float("nan"), None])
def test_fractions_out_of_range(fraction):
    one = stats_with("mlp", [[1.0, 2.0]])
    with pytest.raises(DissectError, match=r"fraction must be in \(0, 1\], got .* \(2% is 0.02\)"):
        score(forget=one, retain=one)["mlp"].top(fraction)


def test_a_fraction_that_selects_nothing():
    one = stats_with("mlp", [[1.0, 2.0]])
    with pytest.raises(DissectError, match=r"fraction 0.1 of 2 units selects no unit; the least is 0.5"):
        score(forget=one, retain=one)["mlp"].top(0.1)


def test_freq_is_refused_on_attention():
    stats = stats_with("value", torch.ones(1, 2, 3))
    with pytest.raises(DissectError, match="no activation function maps negatives to zero"):
        score(forget=stats, retain=stats, importance="freq")
    assert score(forget=stats, retain=stats, importance="freq", force=True)["value"].importance == "freq"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance": "ab"}, r"unknown importance 'ab'; did you mean 'abs'\? \(known: abs, rms, std, freq, sqrt, "),
        ({"eps": -1}, "eps must be a finite number, 0 or more, got -1"),
        ({"eps": float("nan")}, "eps must be"),
        ({"sites": "value"}, "unknown site among those collected 'value'"),
        ({"sites": ["mpl"]}, "unknown site 'mpl'"),
        ({"importance": "rms"}, "'sum_sq'"),
    ],
)
def test_bad_input(options, message):
    one = stats_with("mlp", [[1.0, 2.0]])
    with pytest.raises(DissectError, match=message):
        score(forget=one, retain=one, **options)


def test_statistics_of_two_models():
    with pytest.raises(DissectError, match="two models"):
        score(forget=stats_with("mlp", [[1.0]]), retain=stats_with("mlp", [[1.0, 2.0]]))
