"""Four skills that one tiny model has, each by a block of neurons of its own."""

from __future__ import annotations

from typing import Any

import torch

from dissect import Windows
from tests.support.models import D_VOCAB, tiny_transformer

SKILLS = ("python", "c++", "english", "french")
WIDTH = 10  # tokens of a skill; the first of them is the answer to all the others
BLOCK = 2  # neurons of a skill, in layer 0 (python, c++) and in layer 1
N_LAYERS, D_MLP = 2, 20


def block_of(skill: str) -> list[tuple[int, int]]:
    """The planted neurons, each `(layer, unit)`."""
    place = SKILLS.index(skill)
    return [(place // 2, 5 * (place % 2) + k) for k in range(BLOCK)]


def skilled_model() -> Any:
    """A random model in which each skill's neurons fire on its tokens alone, and promote its answer."""
    model = tiny_transformer(n_layers=N_LAYERS, normalization_type=None, act_fn="relu")
    for block in model.blocks:
        block.attn.W_O.zero_()
        block.attn.b_O.zero_()
        block.mlp.W_in.mul_(0.01)
        block.mlp.W_out.mul_(0.01)
    model.pos_embed.W_pos.zero_()
    model.embed.W_E[:, :8] = 0
    model.unembed.W_U.mul_(0.01)
    model.unembed.b_U.zero_()
    model.unembed.b_U[D_VOCAB - 1] = 1  # what is predicted without the skill
    for place, skill in enumerate(SKILLS):
        model.embed.W_E[place * WIDTH : (place + 1) * WIDTH, place] = 1
        model.unembed.W_U[4 + place, place * WIDTH] = 0.2
        for layer, unit in block_of(skill):
            mlp = model.blocks[layer].mlp
            for weights in (mlp.W_in[:, unit], mlp.W_out[unit], mlp.b_in[unit]):
                weights.zero_()
            mlp.W_in[place, unit] = mlp.W_out[unit, 4 + place] = 3
    return model


def skill_windows(skill: str, seed: int, n_windows: int = 12, context: int = 17) -> Windows:
    """Windows in which every other token is the skill's answer; each is a document."""
    place = SKILLS.index(skill)
    generator = torch.Generator().manual_seed(100 * seed + place)
    tokens = torch.randint(place * WIDTH, (place + 1) * WIDTH, (n_windows, context), generator=generator)
    tokens[:, 1::2] = place * WIDTH
    assert int(tokens.max()) < D_VOCAB
    return Windows.from_tokens(tokens)


def skill_corpora() -> dict[str, tuple[Windows, Windows]]:
    """The train and test windows of each skill."""
    return {skill: (skill_windows(skill, 0), skill_windows(skill, 1)) for skill in SKILLS}
