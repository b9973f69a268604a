"""Masks are sets of units."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dissect import DissectError, Mask
from tests.support.models import tiny_transformer

units = st.sets(st.tuples(st.integers(0, 2), st.integers(0, 4)))


def mask_of(pruned):
    values = torch.zeros(3, 5, dtype=torch.bool)
    for unit in pruned:
        values[unit] = True
    return Mask({"mlp": values})


@given(units, units)
def test_algebra_is_that_of_sets(a, b):
    one, other = mask_of(a), mask_of(b)
    for combined, wanted in (
        (one | other, a | b),
        (one & other, a & b),
        (one - other, a - b),
        (one ^ other, a ^ b),
    ):
        assert set(combined.units("mlp")) == wanted
        assert len(combined) == len(wanted)
        assert bool(combined) == bool(wanted)
        assert combined.per_layer() == [sum(unit[0] == layer for unit in wanted) for layer in range(3)]
    assert (one == other) == (a == b)


def test_a_missing_site_is_empty(model):
    mlp, value = Mask.of(model, "mlp", [(0, 1)]), Mask.of(model, "value", [(1, 1, 5), (2, 0, 0)])
    both = mlp | value
    assert both.sites == ("mlp", "value")
    assert len(both) == 3
    assert both.per_layer() == [1, 1, 1]
    assert both.per_layer("value") == [0, 1, 1]
    assert both - value == mlp
    assert not mlp & value
    assert both != mlp


def test_shapes_follow_the_sites(model):
    sizes = {"mlp": (3, 20), "value": (3, 2, 6), "pre_out": (3, 4, 6), "head": (3, 4)}
    for site, shape in sizes.items():
        assert tuple(Mask.none(model, site)[site].shape) == shape


def test_saving_and_loading(model, tmp_path):
    mask = Mask.of(model, "mlp", [(0, 1), (2, 19)]) | Mask.of(model, "head", [(1, 3)])
    mask.save(tmp_path / "mask.safetensors")
    assert Mask.load(tmp_path / "mask.safetensors") == mask


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "mask.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DissectError, match=r"mask\.safetensors is not a mask"):
        Mask.load(path)


def test_bad_input(model):
    with pytest.raises(DissectError, match=r"unit \(3, 0\).*outside \(3, 20\)"):
        Mask.of(model, "mlp", [(3, 0)])
    with pytest.raises(DissectError, match=r"unit \(0,\)"):
        Mask.of(model, "mlp", [(0,)])
    with pytest.raises(DissectError, match="unknown site"):
        Mask({"nowhere": torch.zeros(2, 2, dtype=torch.bool)})
    with pytest.raises(DissectError, match="holds no site 'value', only mlp"):
        Mask.none(model, "mlp")["value"]
    with pytest.raises(DissectError, match="masks of two models"):
        Mask.none(model, "mlp") | Mask.none(tiny_transformer(d_mlp=8), "mlp")
