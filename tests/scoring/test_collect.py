"""Statistics in one pass, against a calculation that keeps every activation."""

from __future__ import annotations

import pytest
import torch

import dissect
from dissect.backend.forward import run_blocks
from dissect.scoring.moments import SUMS
from dissect.scoring.stats import Stats
from tests.support.models import SITES, our_hooks, tiny_transformer
from tests.support.windows import random_windows


def kept_activations(model, windows, site):
    """All activations at kept positions, float64 `position layer *read`."""
    names = [dissect.SITES[site].hook_name(layer) for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(windows.tokens, names_filter=lambda name: name in names)
    return torch.stack([cache[name][windows.keep].double() for name in names], 1)


def expected(z):
    return {
        "sum": z.sum(0),
        "sum_sq": (z**2).sum(0),
        "sum_abs": z.abs().sum(0),
        "sum_sqrt": z.abs().sqrt().sum(0),
        "positive": (z > 0).double().sum(0),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100, None])
@pytest.mark.parametrize("site", SITES)
def test_one_pass_agrees_with_keeping_all(model, windows, site, batch_size):
    stats = dissect.collect(model, windows, sites=SITES, batch_size=batch_size)[site]
    z = kept_activations(model, windows, site)
    assert stats.count == len(z) == windows.n_kept
    for name, sums in expected(z).items():
        torch.testing.assert_close(stats[name], sums, rtol=1e-5, atol=1e-5)
        assert stats[name].dtype == torch.float64


def test_keep_mask_is_obeyed(model):
    tokens = random_windows().tokens
    keep = torch.zeros_like(tokens, dtype=torch.bool)
    keep[0, 3] = keep[2, 1:5] = keep[5, 16] = True
    windows = dissect.Windows.from_tokens(tokens, keep=keep)
    stats = dissect.collect(model, windows, sites="mlp")["mlp"]
    z = kept_activations(model, windows, "mlp")
    assert stats.count == len(z) == 6
    torch.testing.assert_close(stats["sum"], z.sum(0), rtol=1e-5, atol=1e-6)
    everything = dissect.collect(model, random_windows(), sites="mlp")["mlp"]
    assert not torch.allclose(stats["sum"] / 6, everything["sum"] / everything.count)


@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("site", SITES)
def test_the_first_position_counts_where_it_is_to(model, site, batch_size):
    keep = torch.ones(6, 17, dtype=torch.bool)
    keep[:, 0] = keep[3] = keep[5, 9:] = False  # window 3 has nothing that counts
    windows = dissect.Windows.from_tokens(random_windows().tokens, keep)
    options = {"sites": SITES, "batch_size": batch_size}
    without, stats = (dissect.collect(model, windows, first_position=first, **options)[site] for first in (False, True))
    z = kept_activations(model, windows, site)
    windows.keep[[0, 1, 2, 4, 5], 0] = True  # after the check: a first position is not predicted
    with_first = kept_activations(model, windows, site)
    assert (without.count, stats.count) == (len(z), len(with_first)) == (len(z), len(z) + 5)
    for found, wanted in ((without, z), (stats, with_first)):
        for name, sums in expected(wanted).items():
            torch.testing.assert_close(found[name], sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_parts_merge_to_the_whole(model, windows, cut):
    parts = [
        dissect.collect(model, dissect.Windows.from_tokens(windows.tokens[part]), sites=SITES)
        for part in (slice(None, cut), slice(cut, None))
    ]
    whole = dissect.collect(model, windows, sites=SITES)
    for site in SITES:
        for merged in (parts[0] + parts[1], parts[1] + parts[0]):
            assert merged[site].count == whole[site].count
            for name in SUMS:
                torch.testing.assert_close(merged[site][name], whole[site][name], rtol=1e-5, atol=1e-5)


def test_only_what_is_asked_for(model, windows):
    stats = dissect.collect(model, windows, sites="mlp", moments=("sum_abs",))
    assert list(stats) == ["mlp"]
    assert list(stats["mlp"].moments) == ["sum_abs"]
    with pytest.raises(dissect.DissectError, match="sum_sqrt"):
        dissect.score(forget=stats, retain=stats, importance="sqrt")


def test_nothing_is_unembedded(model, windows):
    calls, unembed = [], model.unembed.forward
    model.unembed.forward = lambda residual: calls.append(1) or unembed(residual)
    dissect.collect(model, windows, sites="mlp")
    assert not calls
    dissect.evaluate(model, windows)
    assert calls


def test_collecting_sees_the_pruned_model(model, windows):
    mask = dissect.Mask.of(model, "mlp", [(0, 3), (2, 7)])
    with dissect.ablated(model, mask):
        stats = dissect.collect(model, windows, sites="mlp")["mlp"]
    assert (stats["sum_abs"] == 0).nonzero().tolist() == [[0, 3], [2, 7]]
    assert our_hooks(model) == 0


def test_user_hooks_still_fire_and_stay(model, windows):
    seen = []
    model.add_hook("blocks.1.mlp.hook_post", lambda z, hook: seen.append(tuple(z.shape)))
    dissect.collect(model, windows, sites="mlp", batch_size=100)
    assert seen == [(6, 17, 20)]
    assert our_hooks(model) == 2  # one hook, listed by TransformerLens and by torch


def test_an_error_leaves_no_hook(model, windows):
    model.blocks[2].forward = lambda *a, **k: (_ for _ in ()).throw(RuntimeError("stop"))
    with pytest.raises(RuntimeError, match="stop"):
        dissect.collect(model, windows)
    assert our_hooks(model) == 0


def test_not_finite_names_layer_and_site(windows):
    model = tiny_transformer()
    model.blocks[1].mlp.W_in[0, 0] = float("inf")
    with pytest.raises(dissect.DissectError, match=r"'mlp'.*layer 1"):
        dissect.collect(model, windows, sites="mlp")


def test_unknown_names(model, windows):
    with pytest.raises(dissect.DissectError, match=r"unknown site 'mpl'.*did you mean 'mlp'.*known: mlp, value"):
        dissect.collect(model, windows, sites="mpl")
    with pytest.raises(dissect.DissectError, match=r"unknown moment 'cube'.*sum_abs"):
        dissect.collect(model, windows, moments=["cube"])


def test_missing_hook_point_is_an_error():
    model = tiny_transformer(attn_only=True)
    with pytest.raises(dissect.DissectError, match=r"needs hook point 'blocks.0.mlp.hook_post'"):
        dissect.collect(model, random_windows(), sites="mlp")


def test_stats_survive_saving(model, windows, tmp_path):
    stats = dissect.collect(model, windows, sites=SITES)
    stats.save(tmp_path / "stats.safetensors")
    loaded = Stats.load(tmp_path / "stats.safetensors")
    assert set(loaded) == set(stats)
    for site in SITES:
        assert loaded[site].count == stats[site].count
        for name in SUMS:
            assert torch.equal(loaded[site][name], stats[site][name])
    (tmp_path / "stats.safetensors").write_bytes(b"rubbish")
    with pytest.raises(dissect.DissectError, match="not a file of statistics"):
        Stats.load(tmp_path / "stats.safetensors")


def test_run_blocks_is_the_model_without_its_end(model, windows):
    residual = run_blocks(model, windows.tokens)
    torch.testing.assert_close(model.unembed(model.ln_final(residual)), model(windows.tokens))
