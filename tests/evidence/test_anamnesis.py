"""Steps until an ability is back, and the anamnesis index, on numbers with a known answer and on tiny models."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from dissect import DissectError, anamnesis_index
from dissect.evidence.anamnesis import bounded_index, steps_until
from dissect.training.training import Plan, Training
from tests.evidence.worlds import FORGET, RATE, accuracy, knows_both, knows_retain, texts


def test_steps_are_interpolated():
    assert steps_until([0, 10, 20], [0.1, 0.3, 0.7], 0.5) == 15
    assert steps_until([0, 10, 20], [0.1, 0.3, 0.3], 0.3) == 10
    assert steps_until([0, 10], [0.6, 0.1], 0.5) == 0
    assert steps_until([0, 10], [0.1, 0.3], 0.5) == math.inf
    assert steps_until([0, 10, 20, 30], [0.1, 0.6, 0.2, 0.9], 0.5) == 8  # the first time


def test_known_indices():
    assert anamnesis_index(12.5, 12.5) == anamnesis_index(0, 0) == 1  # a model against itself
    assert anamnesis_index(1, 40) == 0.025
    assert anamnesis_index(3.0, 0) == math.inf
    assert anamnesis_index(0, 7.5) == 0
    assert math.isnan(anamnesis_index(math.inf, math.inf))
    assert bounded_index(math.inf, 5, 20) == (4, ">")
    assert bounded_index(5, math.inf, 20) == (0.25, "<")
    assert bounded_index(5, 10, 20) == (0.5, "=")
    assert bounded_index(math.inf, math.inf, 20)[1] == "?"
    for wrong in (-1, -0.5, math.nan):
        with pytest.raises(DissectError, match="steps"):
            anamnesis_index(wrong, 3)


def steps_to_relearn(hf_model, target, most=60):
    training = Training(copy.deepcopy(hf_model), texts()["forget"][0], Plan(RATE))
    found = [accuracy(training.model, texts()["forget"][1])]
    while found[-1] < target and training.step < most:
        training.advance(training.step + 1)
        found.append(accuracy(training.model, texts()["forget"][1]))
    return steps_until(range(len(found)), found, target)


def test_hidden_knowledge_has_an_index_near_zero():
    """A bias that covers what a model knows is soon trained away; what a model never knew takes longer."""
    knows, never, hidden = knows_both(), knows_retain(), copy.deepcopy(knows_both())
    target = 0.95 * accuracy(knows, texts()["forget"][1])
    assert target > 0.9
    with torch.no_grad():
        hidden.lm_head.bias[FORGET.start :] -= 8.5
    assert accuracy(hidden, texts()["forget"][1]) < 0.5
    assert accuracy(hidden, texts()["retain"][1]) > 0.95
    control = steps_to_relearn(never, target)
    assert anamnesis_index(steps_to_relearn(hidden, target), control) < 0.15
    assert anamnesis_index(steps_to_relearn(never, target), control) == 1
