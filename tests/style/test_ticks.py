"""Ticks are round, inside the axis, and few."""

from __future__ import annotations

import itertools
import math

import pytest

from dissect.style.ticks import layer_ticks, log_ticks, ticks


@pytest.mark.parametrize(("low", "high"), [(-3.2, 7.9), (0, 1), (0.98, 1.31), (-4e-5, 9e-5), (0, 98_000)])
def test_linear_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 5
    assert all(low <= tick <= high for tick in found)
    steps = {round(b - a, 12) for a, b in itertools.pairwise(found)}
    (step,) = steps
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


def test_log_ticks():
    assert log_ticks(0.001, 1000) == pytest.approx([10.0**power for power in range(-3, 4)])
    assert log_ticks(0.4, 6) == pytest.approx([0.5, 1, 2, 5])
    assert log_ticks(0.98, 1.31) == pytest.approx([1.0, 1.1, 1.2, 1.3])
    assert log_ticks(1, 1) == [1]
    assert len(log_ticks(1e-12, 1e12)) <= 9


@pytest.mark.parametrize("layers", [1, 2, 8, 9, 12, 30, 96])
def test_layers_are_whole_numbers_from_0(layers):
    found = layer_ticks(layers)
    assert found[0] == 0
    assert found[-1] < layers
    assert len(found) <= 8
