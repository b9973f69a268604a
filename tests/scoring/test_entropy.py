"""Entropy over corpora: against a calculation by hand, and against what it must leave out."""

from __future__ import annotations

import math

import pytest
import torch

from dissect import DissectError, Stats, UnitStats, collect, entropy
from tests.support.models import tiny_transformer
from tests.support.windows import random_windows


def stats_of(*importances, count=4):
    """Statistics whose mean absolute activations are these, one a unit of one layer."""
    sums = torch.tensor([importances], dtype=torch.float64) * count
    return Stats({"mlp": UnitStats(count, {"sum_abs": sums})})


def test_by_hand():
    found = entropy({"a": stats_of(3, 1, 0, 5), "b": stats_of(1, 1, 0, 0)})
    assert found.corpora == ("a", "b")
    halves, quarter = math.log(2), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.values[0].tolist() == pytest.approx([quarter, halves, halves, 0])
    assert found.shares[:, 0].T.tolist() == [[0.75, 0.25], [0.5, 0.5], [0.5, 0.5], [1, 0]]


def test_the_lowest_are_among_the_active():
    """Of 40 importances the two highest are above the 95th percentile; a unit that is faint everywhere never counts."""
    first = [0.1] * 20
    first[3], first[7], first[9] = 9, 8, 0.001
    second = [0.1] * 20
    second[3], second[9] = 4, 0
    found = entropy({"a": stats_of(*first), "b": stats_of(*second)})
    assert found.active[0].nonzero().flatten().tolist() == [3, 7]
    assert found.values[0, 9] == 0  # the lowest of all, and not taken
    assert found.lowest(count=1).units("mlp") == [(0, 7)]
    assert found.lowest(0.1).units("mlp") == [(0, 3), (0, 7)]
    with pytest.raises(DissectError, match="cannot take 3 units of site 'mlp': 2 are active"):
        found.lowest(count=3)


def test_heads_have_the_mean_of_their_neurons():
    model = tiny_transformer()
    stats = {name: collect(model, random_windows(seed=k), sites="head", progress=False) for k, name in enumerate("ab")}
    found = entropy(stats, site="head")
    assert found.importances.shape == (2, *stats["a"]["head"].shape[:2])
    mean = (stats["b"]["head"]["sum_abs"] / stats["b"]["head"].count).mean(-1)
    assert torch.allclose(found.importances[1], mean)


@pytest.mark.parametrize(
    ("stats", "options", "message"),
    [
        ({"a": stats_of(1)}, {}, "entropy is over two corpora or more, got 1"),
        ({}, {}, "got 0"),
        ({"a": stats_of(1), "b": stats_of(1, 2)}, {}, r"statistics of two models: \(1, 1\) and \(1, 2\)"),
        ({"a": stats_of(1), "b": stats_of(math.inf)}, {}, "importance 'abs' to b is not finite in layer 0"),
        ({"a": stats_of(1), "b": stats_of(1)}, {"importance": "freq"}, "but not 'positive'"),
        ({"a": stats_of(1), "b": stats_of(1)}, {"importance": "freq", "site": "value"}, "says little there"),
        ({"a": stats_of(1), "b": stats_of(1)}, {"importance": "attribution"}, "below zero, so it has no entropy"),
        ({"a": stats_of(1), "b": stats_of(1)}, {"site": "mpl"}, "unknown site 'mpl'"),
    ],
)
def test_bad_input(stats, options, message):
    with pytest.raises(DissectError, match=message):
        entropy(stats, **options)
