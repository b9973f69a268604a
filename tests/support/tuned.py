"""A model whose forget skill only one importance and one edit reach, and text for tuning."""

from __future__ import annotations

from typing import Any

import torch

from dissect import Windows
from tests.support.models import D_VOCAB
from tests.support.skills import WIDTH, block_of, skill_windows, skilled_model

ALWAYS = (0, 15)  # the neuron that all of the python skill goes through
TEST_TOKEN = D_VOCAB - 2  # only in test windows


def hidden_skill_model() -> Any:
    """Python's answer comes from a neuron that is as active on all text, so that no mean activation tells it apart.

    English's neurons are twice as active on python, where they do nothing: `abs` cuts them first, and at zero or at its
    mean. The neuron that is always on has to be found by gradients, and set to zero: its mean is what it is.
    """
    model = skilled_model()
    for block in model.blocks:
        block.mlp.b_out.zero_()
    for layer, unit in block_of("python"):
        for weights in (model.blocks[layer].mlp.W_in[:, unit], model.blocks[layer].mlp.W_out[unit]):
            weights.zero_()
    layer, unit = ALWAYS
    mlp = model.blocks[layer].mlp
    mlp.W_in[:, unit], mlp.b_in[unit], mlp.W_out[unit] = 0, 2, 0
    mlp.W_out[unit, 4] = 4
    for layer, unit in block_of("english"):
        model.blocks[layer].mlp.W_in[0, unit] = 6
    model.unembed.W_U[0, 2 * WIDTH] = -20  # on python tokens
    return model


def tuning_text(skill: str) -> tuple[Windows, Windows, Windows]:
    """Train, validation and test windows of a skill; the test windows begin with a token of their own."""
    train, validation, test = (skill_windows(skill, seed, 12) for seed in (0, 2, 1))
    tokens = test.tokens.clone()
    tokens[:, 0] = TEST_TOKEN
    return train, validation, Windows.from_tokens(tokens)


def tokens_read(model: Any) -> list[torch.Tensor]:
    """Grows by the tokens of every forward pass of the model from now on."""
    seen: list[torch.Tensor] = []
    model.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    return seen
