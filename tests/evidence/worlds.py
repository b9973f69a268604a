"""A tiny world of pairs of tokens, and models that know one kind of pair, or both, or both by few neurons."""

from __future__ import annotations

import copy
import functools

import torch

from dissect import Windows
from dissect.training.training import Plan, Training

VOCAB, BOS = 24, 0
WIDTH, PLANTED = 64, 24  # feed-forward neurons, and how many of them know the forget pairs
RATE = 1e-2


def pairs(shift: int, tokens: range, seed: int, count: int = 24) -> Windows:
    """Windows in which each token of a range is followed by its partner, `shift` further on; partners alone count."""
    drawn = torch.randint(0, len(tokens), (count, 8), generator=torch.Generator().manual_seed(seed))
    listed = torch.tensor(tokens)
    both = torch.stack([listed[drawn], listed[(drawn + shift) % len(tokens)]], 2)
    rows = torch.cat([torch.full((count, 1), BOS), both.flatten(1)], 1)
    keep = torch.zeros_like(rows, dtype=torch.bool)
    keep[:, 2::2] = True
    return Windows.from_tokens(rows, keep)


FORGET, RETAIN = range(12, 24), range(1, 12)


@functools.cache
def texts() -> dict[str, tuple[Windows, Windows]]:
    """The train and test windows of both kinds."""
    return {
        "forget": (pairs(3, FORGET, 0), pairs(3, FORGET, 7, 12)),
        "retain": (pairs(5, RETAIN, 1), pairs(5, RETAIN, 8, 12)),
    }


def together(*sides: Windows) -> Windows:
    return Windows.from_tokens(torch.cat([side.tokens for side in sides]), torch.cat([side.keep for side in sides]))


def taught(hf_model, windows: Windows, steps: int):
    """A copy that was trained."""
    training = Training(copy.deepcopy(hf_model).requires_grad_(True), windows, Plan(RATE))
    training.advance(steps)
    return training.model


@functools.cache
def knows_retain():
    """A model of one layer that never saw a forget pair."""
    from transformers import PhiConfig, PhiForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = PhiConfig(vocab_size=VOCAB, max_position_embeddings=32, bos_token_id=BOS, eos_token_id=BOS, **sizes)
    return taught(PhiForCausalLM(config).eval(), texts()["retain"][0], 30)


@functools.cache
def knows_both():
    """The same, trained on both kinds, all over."""
    return taught(knows_retain(), together(texts()["forget"][0], texts()["retain"][0]), 60)


@functools.cache
def planted():
    """The same as `knows_retain`, but that its first neurons alone were trained on both kinds."""
    hf_model = copy.deepcopy(knows_retain()).requires_grad_(False)
    mlp, first = hf_model.model.layers[0].mlp, torch.arange(WIDTH) < PLANTED
    for weight, mask in ((mlp.fc1.weight, first[:, None]), (mlp.fc1.bias, first), (mlp.fc2.weight, first)):
        weight.requires_grad_(True).register_hook(lambda gradient, mask=mask: gradient * mask)
    training = Training(hf_model, together(texts()["forget"][0], texts()["retain"][0]), Plan(RATE))
    training.advance(120)
    return hf_model.requires_grad_(False)


@torch.no_grad()
def accuracy(hf_model, windows: Windows) -> float:
    guess = hf_model(windows.tokens).logits[:, :-1].argmax(-1)
    return float((guess == windows.tokens[:, 1:])[windows.keep[:, 1:]].double().mean())
