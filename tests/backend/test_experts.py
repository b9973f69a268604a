"""Experts as sites: what is read there is what transformers computes, and a cut there is a cut in the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dissect
from dissect import SITES, DissectError, Mask
from dissect.backend.experts import find_experts, making_weights, open_experts
from dissect.backend.sites import hook_points, sites_of
from tests.support import tiny
from tests.support.mixtures import EXPERTS, LAYERS, MIXTURES, ROUTED, WIDTH, Dense, bridged, mixture
from tests.support.models import tiny_transformer
from tests.support.windows import random_windows

WINDOWS = random_windows(4, 12, d_vocab=tiny.VOCAB)
TOKENS = WINDOWS.tokens
SITE_NAMES = ("expert", "expert_mlp")


@pytest.fixture(scope="module", params=MIXTURES)
def pair(request):
    """A transformers model, and a bridge to a copy of it."""
    hf_model = mixture(request.param)
    return hf_model, bridged(hf_model)


@pytest.fixture(scope="module")
def mixtral():
    return bridged(mixture("mixtral"))


def some_units(model, site, fraction=0.3, seed=0):
    shape = SITES[site].mask_shape(model.cfg)
    return Mask({site: torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < fraction})


def difference(logits, others):
    """Relative to the spread of the logits."""
    return ((logits - others).pow(2).mean().sqrt() / logits.std()).item()


def experts_of(hf_model, layer):
    return hf_model.model.layers[layer].mlp.experts


def with_zeroed_weights(hf_model, mask):
    """A copy in which what the units write, and with a whole expert its bias, is zero."""
    cut = copy.deepcopy(hf_model)
    (site,) = mask.sites
    for layer, expert, *unit in mask.units(site):
        experts = experts_of(cut, layer)
        rows = experts.down_proj[expert] if experts.is_transposed else experts.down_proj[expert].T
        rows[unit[0] if unit else slice(None)] = 0
        if not unit and experts.has_bias:
            experts.down_proj_bias[expert] = 0
    return cut


def test_logits_are_those_of_transformers(pair):
    hf_model, model = pair
    assert difference(model(TOKENS), hf_model(TOKENS).logits) < 1e-6
    assert difference(model(TOKENS), hf_model(TOKENS.flip(1)).logits) > 0.1


@pytest.mark.parametrize("site", SITE_NAMES)
def test_a_cut_by_hooks_is_a_cut_in_the_weights(pair, site):
    hf_model, model = pair
    mask, whole = some_units(model, site), model(TOKENS)
    with dissect.ablated(model, mask):
        cut = model(TOKENS)
    assert difference(cut, with_zeroed_weights(hf_model, mask)(TOKENS).logits) < 1e-6
    assert difference(cut, whole) > 0.05
    assert torch.equal(model(TOKENS), whole)


@pytest.mark.parametrize("site", SITE_NAMES)
def test_baked_as_ablated_and_restored_bit_for_bit(pair, site):
    model = pair[1]
    mask, before = some_units(model, site, seed=1), {k: v.clone() for k, v in model.named_parameters()}
    with dissect.ablated(model, mask):
        expected = model(TOKENS)
    edit = dissect.bake(model, mask)
    assert difference(model(TOKENS), expected) < 1e-6
    assert any(not torch.equal(before[name], weight) for name, weight in model.named_parameters())
    edit.restore()
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())


def test_statistics_count_what_is_not_routed_as_zero(pair):
    hf_model, model = pair
    stats = dissect.collect(model, WINDOWS, sites=SITE_NAMES, batch_size=3, progress=False)
    dense = Dense(hf_model)
    dense(TOKENS)
    kept = WINDOWS.keep.flatten()
    for site, which in (("expert", 0), ("expert_mlp", 1)):
        z = torch.stack([seen[which][kept] for seen in dense.seen]).double()
        assert stats[site].count == len(z[0]) == WINDOWS.n_kept
        expected = {
            "sum": z.sum(1),
            "sum_sq": (z**2).sum(1),
            "sum_abs": z.abs().sum(1),
            "sum_sqrt": z.abs().sqrt().sum(1),
            "positive": (z > 0).double().sum(1),
        }
        for moment, sums in expected.items():
            assert torch.allclose(stats[site][moment], sums, rtol=1e-5, atol=1e-4), moment
        assert (z == 0).double().mean() > 0.4
    assert int(stats["expert"]["positive"].sum()) == LAYERS * ROUTED * WINDOWS.n_kept


@pytest.mark.parametrize("site", SITE_NAMES)
def test_mean_ablation_replaces_the_activations(pair, site):
    """A whole expert then writes at every position, with its mean weight; its neurons only where it is routed to."""
    hf_model, model = pair
    mask, stats = some_units(model, site), dissect.collect(model, WINDOWS, sites=site, progress=False)
    means = (stats[site]["sum"] / stats[site].count).float()

    def change(layer, z):
        return torch.where(mask[site][layer], means[layer], z)

    changes = {"mass": change} if site == "expert" else {"activations": change}
    with dissect.ablated(model, mask, value="mean", stats=stats):
        found = model(TOKENS)
    assert difference(found, Dense(hf_model, **changes)(TOKENS)) < 1e-6
    with dissect.ablated(model, mask):
        assert difference(found, model(TOKENS)) > 1e-3


def test_means_are_baked_where_experts_have_biases():
    model = bridged(mixture("gpt-oss"))
    mask, stats = some_units(model, "expert_mlp"), dissect.collect(model, WINDOWS, sites="expert_mlp", progress=False)
    with dissect.ablated(model, mask, value="mean", stats=stats):
        expected = model(TOKENS)
    whole = model(TOKENS)
    edit = dissect.bake(model, mask, value="mean", stats=stats)
    assert difference(model(TOKENS), expected) < 1e-6
    assert difference(model(TOKENS), whole) > 0.05
    edit.restore()
    assert torch.equal(model(TOKENS), whole)


@pytest.mark.parametrize(
    ("site", "message"),
    [("expert", "is no constant output"), ("expert_mlp", "its experts have no bias")],
)
def test_means_that_weights_cannot_hold_are_refused(mixtral, site, message):
    mask, stats = some_units(mixtral, site), dissect.collect(mixtral, WINDOWS, sites=site, progress=False)
    before = {name: weight.clone() for name, weight in mixtral.named_parameters()}
    with pytest.raises(DissectError, match=message):
        dissect.bake(mixtral, mask, value="mean", stats=stats)
    assert all(torch.equal(before[name], weight) for name, weight in mixtral.named_parameters())


def test_a_layer_without_any_expert_writes_nothing(mixtral):
    mask = Mask.of(mixtral, "expert", [(1, expert) for expert in range(EXPERTS)])
    with dissect.ablated(mixtral, mask):
        cut = mixtral(TOKENS)
        stats = dissect.collect(mixtral, WINDOWS, sites=SITE_NAMES, progress=False)
    edit = dissect.bake(mixtral, mask)
    assert difference(mixtral(TOKENS), cut) < 1e-6
    edit.restore()
    assert stats["expert_mlp"]["sum_abs"][1].sum() == stats["expert"]["sum_abs"][1].sum() == 0
    assert stats["expert_mlp"]["sum_abs"][0].sum() > 0


def test_cutting_all_neurons_of_an_expert_is_cutting_it(mixtral):
    """It has no biases, so that what neurons write is all that it writes."""
    whole = Mask.of(mixtral, "expert", [(0, 2), (1, 1)])
    neurons = Mask({"expert_mlp": whole["expert"][..., None].expand(LAYERS, EXPERTS, WIDTH)})
    with dissect.ablated(mixtral, whole):
        expected = mixtral(TOKENS)
    with dissect.ablated(mixtral, neurons):
        assert difference(mixtral(TOKENS), expected) < 1e-6


def test_hooks_follow_a_copy_of_the_model(mixtral):
    mask = some_units(mixtral, "expert_mlp")
    handle = dissect.ablate(mixtral, mask)
    cut = mixtral(TOKENS)
    other, others_handle = copy.deepcopy((mixtral, handle))
    handle.remove()
    assert torch.equal(other(TOKENS), cut)
    others_handle.remove()
    assert torch.equal(other(TOKENS), mixtral(TOKENS))
    assert not torch.equal(other(TOKENS), cut)


class Largest(TorchDispatchMode):
    """The size of the largest tensor that anything gives."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, torch.Tensor):
                self.size = max(self.size, each.numel())
        return out


def test_no_tensor_has_every_expert_at_every_position():
    model = bridged(MIXTURES["mixtral"](num_local_experts=16, num_experts_per_tok=1, intermediate_size=64))
    windows = random_windows(8, 32, d_vocab=tiny.VOCAB)
    with Largest() as largest:
        dissect.collect(model, windows, sites="expert_mlp", batch_size=8, progress=False)
    dense = windows.tokens.numel() * 16 * 64
    assert 0 < largest.size < dense / 2
    with Largest() as largest:
        torch.zeros(windows.tokens.numel(), 16, 64)
    assert largest.size == dense


def test_sites_of_a_mixture_and_of_a_dense_model(mixtral):
    assert sites_of(mixtral) == ["value", "pre_out", "head", "expert", "expert_mlp"]
    assert sites_of(tiny_transformer()) == ["mlp", "value", "pre_out", "head"]


@pytest.mark.parametrize("site", SITE_NAMES)
def test_a_dense_model_has_no_experts(site):
    model = tiny_transformer()
    for ask in (lambda: dissect.collect(model, random_windows(), sites=site), lambda: Mask.none(model, site)):
        with pytest.raises(DissectError, match=f"site '{site}' .* is for mixtures of experts"):
            ask()


def test_feed_forward_neurons_of_a_mixture_are_refused(pair):
    with pytest.raises(DissectError, match="use sites 'expert' and 'expert_mlp'"):
        hook_points(pair[1], SITES["mlp"])


def test_opening_twice_changes_nothing():
    model = bridged(mixture("qwen2-moe"))
    points, logits = hook_points(model, SITES["expert_mlp"]), model(TOKENS)
    open_experts(model)
    assert points == hook_points(model, SITES["expert_mlp"])  # the same objects
    assert torch.equal(model(TOKENS), logits)


def test_layers_without_experts_are_named():
    model = bridged(MIXTURES["qwen2-moe"](mlp_only_layers=[0]))
    for site in SITE_NAMES:
        with pytest.raises(DissectError, match=rf"'blocks.0.hook_{site}'.* in layer 0"):
            dissect.collect(model, WINDOWS, sites=site, progress=False)
    assert "value" in sites_of(model)


def test_numbers_that_are_not_finite_are_named():
    model = bridged(mixture("mixtral"))
    for weight in making_weights(find_experts(model.blocks[1]))[0]:
        weight.fill_(torch.nan)
    with pytest.raises(DissectError, match="site 'expert_mlp' are not finite in layer 1"):
        dissect.collect(model, WINDOWS, sites=SITE_NAMES, progress=False)
