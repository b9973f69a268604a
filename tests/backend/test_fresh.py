"""No result depends on what ran before: the first pass is the next one's computation, whatever grows on the way."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from transformer_lens.components import AbstractAttention

import dissect
from dissect import Windows
from dissect.backend import fast
from tests.support.models import tiny_transformer
from tests.support.tiny import VOCAB
from tests.support.windows import random_windows

ROTARY = """gpt-neox gpt-neox-sequential llama llama-ungrouped llama3-rope mistral qwen2 qwen2-window qwen3 gemma gemma2
gemma3 phi phi3""".split()
VARIANTS = {
    "neighbours": {"rotary_adjacent_pairs": True},
    "dynamic": {"use_dynamic_ntk_rope": True, "train_seq_length": 12},
    "yarn": {"use_yarn_rope": True, "yarn_factor": 4.0, "yarn_original_max_position_embeddings": 16},
    "two bases": {
        "rotary_base_local": 1000,
        "use_local_attn": True,
        "window_size": 50,
        "attn_types": ["local", "global", "local"],
    },
    "log-n": {"use_logn_attn": True, "train_seq_length": 12},
}
SHORT, LONG = 10, 60


@pytest.fixture(autouse=True)
def _short_tables(monkeypatch):
    monkeypatch.setattr(AbstractAttention, "ROTARY_INITIAL_CACHE_SIZE", 8)


def results(model, windows):
    """Every number of an evaluation and of a collection, by its bits."""
    stats = dissect.collect(model, windows, progress=False)
    sums = [sums for site in stats for sums in stats[site].moments.values()]
    return repr(dissect.evaluate(model, windows, progress=False)), torch.cat([each.flatten() for each in sums])


def assert_equal(one, other):
    assert one[0] == other[0]
    assert torch.equal(one[1], other[1])


def assert_no_history(model, vocabulary=50):
    """Long windows thrice, short ones before and after, and each in a copy that has read nothing else."""
    copies = [copy.deepcopy(model) for _ in range(2)]
    short, long = (random_windows(4, width, d_vocab=vocabulary) for width in (SHORT, LONG))
    found = results(model, long)
    for again in (model, model, copies[0]):
        assert_equal(results(again, long), found)
    first = results(copies[1], short)
    assert_equal(results(model, short), first)
    assert_equal(results(copies[1], long), found)
    assert_equal(results(copies[1], short), first)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("family", ROTARY)
def test_every_rotary_family(folder_of, family, dtype):
    model = dissect.load_model(folder_of(family), dtype=dtype)
    assert len(model.blocks[0].attn.rotary_cos) < LONG
    assert_no_history(model, VOCAB)
    assert len(model.blocks[0].attn.rotary_cos) >= LONG


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_rotary_positions(variant, dtype):
    changes = {"positional_embedding_type": "rotary", "rotary_dim": 6, **VARIANTS[variant]}
    assert_no_history(tiny_transformer(**changes, dtype=dtype))


@pytest.mark.parametrize("kind", ["alibi", "standard", "shortformer"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_positions(kind, dtype):
    assert_no_history(tiny_transformer(positional_embedding_type=kind, dtype=dtype))


def test_a_masked_model(folder_of):
    assert_no_history(dissect.load_model(folder_of("roberta"), dtype="float32"), VOCAB)


def test_a_model_that_was_retyped():
    """Its first rows are rounded; lengthening does not make others of them."""
    model = tiny_transformer(positional_embedding_type="rotary", rotary_dim=6, dtype=torch.bfloat16)
    assert_no_history(model.to(torch.float32))


def test_what_the_user_ran_changes_nothing():
    changes = {"positional_embedding_type": "rotary", "rotary_dim": 6, "dtype": torch.bfloat16}
    for kind in (changes, {"positional_embedding_type": "alibi", "dtype": torch.bfloat16}):
        model, windows = tiny_transformer(**kind), random_windows(4, SHORT)
        expected = results(copy.deepcopy(model), windows)
        model(torch.arange(50)[None])
        assert_equal(results(model, windows), expected)


def test_the_first_pass_over_long_windows_is_quick(monkeypatch):
    model = tiny_transformer(positional_embedding_type="rotary", rotary_dim=6)
    plain = []
    monkeypatch.setattr(AbstractAttention, "calculate_attention_scores", lambda *args: plain.append(args))
    dissect.collect(model, random_windows(4, LONG), progress=False)
    assert not plain
    assert fast.is_enabled() is not torch.is_grad_enabled()


def test_longer_tables_are_transformer_lens_own():
    kinds = {"positional_embedding_type": "rotary", "rotary_dim": 6, **VARIANTS["two bases"]}
    model, expected = tiny_transformer(**kinds), tiny_transformer(**kinds)
    dissect.collect(model, random_windows(4, LONG), progress=False)
    expected(torch.arange(50)[None])
    for mine, theirs in zip(model.blocks, expected.blocks, strict=True):
        assert torch.equal(mine.attn.rotary_cos[:50], theirs.attn.rotary_cos[:50])
        assert torch.equal(mine.attn.rotary_sin[:50], theirs.attn.rotary_sin[:50])
    assert not torch.equal(model.blocks[0].attn.rotary_cos, model.blocks[1].attn.rotary_cos)


@pytest.mark.parametrize("kl", [False, True])
def test_a_stopped_run_ends_with_the_same_history(folder_of, tmp_path, monkeypatch, kl):
    """Each process begins with short tables."""
    pairs = [
        (random_windows(4, LONG, seed=s, d_vocab=VOCAB), random_windows(4, LONG, seed=s + 1, d_vocab=VOCAB))
        for s in (1, 3)
    ]
    options = {"forget": pairs[0], "retain": pairs[1], "fraction": 0.1, "steps": 3, "kl": kl, "progress": False}

    def model():
        return dissect.load_model(folder_of("llama"), dtype="bfloat16")

    whole = dissect.prune(model(), **options, out=tmp_path / "whole")
    take_step = dissect.runs.prune.take_step

    def stopped(work, step):
        if step == 2:
            raise KeyboardInterrupt
        take_step(work, step)

    with monkeypatch.context() as patched:
        patched.setattr(dissect.runs.prune, "take_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            dissect.prune(model(), **options, out=tmp_path / "stopped")
    run = dissect.prune(model(), **options, out=tmp_path / "stopped")
    assert [replace(step, seconds=0) for step in run.history] == [replace(step, seconds=0) for step in whole.history]
    assert run.mask() == whole.mask()


def test_windows_as_long_as_the_model_reads():
    model = tiny_transformer(positional_embedding_type="rotary", rotary_dim=6, n_ctx=LONG)
    dissect.evaluate(model, Windows.from_tokens(torch.arange(LONG)[None] % 50), progress=False)
    assert len(model.blocks[0].attn.rotary_cos) == LONG
