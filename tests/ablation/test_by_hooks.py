"""Hooks that prune: what they cut, that they stay while they should, and that they leave nothing."""

from __future__ import annotations

import pytest
import torch

import dissect
from dissect import DissectError, Mask, ablate, ablated
from tests.support.models import our_hooks, tiny_transformer

ONE_UNIT = {"mlp": (1, 3), "value": (1, 1, 2), "pre_out": (1, 3, 2), "head": (1, 2)}


def zero_by_hand(model, site, unit):
    """The same deletion in the weights, worked out independently of the hooks."""
    layer, *rest = unit
    block = model.blocks[layer]
    if site == "mlp":
        block.mlp.W_out[rest[0]] = 0
    if site == "value":
        value_head, i = rest
        group = model.cfg.n_heads // model.cfg.n_key_value_heads
        block.attn.W_O[value_head * group : (value_head + 1) * group, i] = 0
    if site == "pre_out":
        block.attn.W_O[rest[0], rest[1]] = 0
    if site == "head":
        block.attn.W_O[rest[0]] = 0


@pytest.mark.parametrize("site", ONE_UNIT)
def test_a_hook_cuts_what_zeroed_weights_cut(model, windows, site):
    whole = model(windows.tokens)
    with ablated(model, Mask.of(model, site, [ONE_UNIT[site]])):
        hooked = model(windows.tokens)
    assert not torch.allclose(hooked, whole, atol=1e-3)
    zero_by_hand(model, site, ONE_UNIT[site])
    torch.testing.assert_close(hooked, model(windows.tokens), rtol=1e-5, atol=1e-5)


def test_value_and_pre_out_are_one_deletion_without_grouped_queries(windows):
    model = tiny_transformer(n_key_value_heads=None)
    units = [(0, 1, 2), (2, 3, 5)]
    results = []
    for site in ("value", "pre_out"):
        with ablated(model, Mask.of(model, site, units)):
            results.append(model(windows.tokens))
    assert torch.equal(*results)


@pytest.mark.parametrize("key_value_heads", [2, 4])
def test_a_value_unit_is_the_pre_out_units_it_feeds(windows, key_value_heads):
    model = tiny_transformer(n_key_value_heads=key_value_heads)
    value = Mask.of(model, "value", [(0, 1, 3), (1, 0, 0)])
    fed = value.as_pre_out(model)
    assert len(fed) == 2 * model.cfg.n_heads // key_value_heads
    results = []
    for mask in (value, fed, fed - Mask.of(model, "pre_out", fed.units("pre_out")[:1])):
        with ablated(model, mask):
            results.append(model(windows.tokens))
    torch.testing.assert_close(results[0], results[1])
    assert not torch.allclose(results[0], results[2])  # one of the units alone is another deletion


def test_only_value_units_feed_others(model):
    with pytest.raises(DissectError, match="a mask of site 'value' alone, got mlp"):
        Mask.of(model, "mlp", [(0, 0)]).as_pre_out(model)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind(model, windows, error):
    before = model(windows.tokens)
    mask = Mask.of(model, "mlp", [(0, 1)]) | Mask.of(model, "value", [(1, 0, 0)])
    try:
        with ablated(model, mask):
            assert our_hooks(model) == 4
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert our_hooks(model) == 0
    assert torch.equal(model(windows.tokens), before)


def test_a_persistent_ablation_survives_reset_hooks(model, windows):
    before = model(windows.tokens)
    handle = ablate(model, Mask.of(model, "mlp", [(0, 1)]))
    pruned = model(windows.tokens)
    model.reset_hooks()
    assert torch.equal(model(windows.tokens), pruned)
    assert not torch.equal(pruned, before)
    handle.remove()
    handle.remove()
    assert our_hooks(model) == 0
    assert torch.equal(model(windows.tokens), before)


def test_nesting_and_stacking(model, windows):
    a, b = Mask.of(model, "mlp", [(0, 1)]), Mask.of(model, "mlp", [(0, 2), (2, 5)])

    def logits():
        return model(windows.tokens)

    with ablated(model, a | b):
        both = logits()
    with ablated(model, b):
        only_b = logits()
    first, second = ablate(model, a), ablate(model, b)
    assert torch.equal(logits(), both)
    first.remove()
    assert torch.equal(logits(), only_b)
    with ablated(model, a):
        assert torch.equal(logits(), both)
    assert torch.equal(logits(), only_b)
    second.remove()
    assert our_hooks(model) == 0


def test_user_hooks_stay(model):
    model.add_hook("blocks.0.mlp.hook_post", lambda z, hook: None)
    with ablated(model, Mask.of(model, "mlp", [(0, 1)])):
        pass
    assert our_hooks(model) == 2


def test_the_mask_is_taken_as_it_is_now(model, windows):
    mask = Mask.of(model, "mlp", [(0, 1)])
    with ablated(model, mask):
        before = model(windows.tokens)
        mask["mlp"][:] = True
        assert torch.equal(model(windows.tokens), before)


def test_an_empty_mask_changes_nothing(model, windows):
    before = model(windows.tokens)
    with ablated(model, Mask.none(model, ["mlp", "value"])):
        assert our_hooks(model) == 0
        assert torch.equal(model(windows.tokens), before)


def test_a_mask_of_another_model(model):
    with pytest.raises(
        DissectError, match=r"mask of another model: site 'mlp' has shape \(3, 8\), 'tiny' has \(3, 20\)"
    ):
        dissect.ablate(model, Mask.none(tiny_transformer(d_mlp=8), "mlp"))
    assert our_hooks(model) == 0
