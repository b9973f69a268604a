"""Pruning in the weights: what the paper names is set to zero, and can be set back bit for bit.

| site      | set to zero                                                                      |
| --------- | -------------------------------------------------------------------------------- |
| `mlp`     | W_in column, W_gate column, b_in entry, W_out row                                  |
| `value`   | W_V column, b_V entry, and the W_O row of every query head that the value serves   |
| `pre_out` | W_O row; W_V column and b_V entry where no other query head shares them            |
| `head`    | as `pre_out`, all of the head                                                      |

In a model with `ungroup_grouped_query_attention` a value unit is of one query head: it is cut as a pre-out unit.

Mean ablation also adds the mean's constant contribution to the output bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dissect.ablation.by_hooks import check_cut, read_mask, replacement
from dissect.ablation.weight_edit import WeightEdit
from dissect.backend.sites import get_site, hook_points
from dissect.base.errors import DissectError
from dissect.base.options import Value
from dissect.scoring.masks import Mask
from dissect.scoring.stats import Stats


def bake(model: Any, mask: Mask, *, value: Value = "zero", stats: Stats | None = None) -> WeightEdit:
    """Prune `mask` in the weights of `model`, in place, until `restore()` is called on the handle.

    The logits are those that `ablate` gives with the same arguments.

    Args:
        model: A TransformerLens model.
        mask: The units to prune.
        value: `zero`, or `mean` to leave each unit's mean activation in the output bias.
        stats: For `mean`, the statistics that hold the means, usually those of the retain data set.

    Raises:
        DissectError: The mask is of another model's shape, `mean` has no statistics, or the model lacks a site's hook
            point or changes values on their way (`check_values_add_up`).
    """
    check_cut(model, mask, value)
    for name in mask.sites:
        hook_points(model, get_site(name))
    if value == "mean" and "value" in mask.sites:
        check_values_add_up(model)
    edit = WeightEdit()
    with torch.no_grad(), edit.or_nothing():
        for name in mask.sites:
            site = get_site(name)
            pruned, means = read_mask(site, mask[name], model.cfg), replacement(site, value, stats, model.cfg)
            for layer in mask[name].flatten(1).any(1).nonzero().flatten().tolist():
                block = model.blocks[layer]
                instead = torch.zeros(pruned[layer].shape, dtype=torch.float64) if means is None else means[layer]
                _BAKE[name](edit, block, pruned[layer], instead)
        return edit


Layer = Bool[Tensor, "*read"]
Means = Float[Tensor, "*read"]


def _bake_mlp(edit: WeightEdit, block: Any, pruned: Layer, means: Means) -> None:
    mlp = block.mlp
    _keep_constant(edit, mlp.b_out, means[pruned], mlp.W_out[pruned.to(mlp.W_out.device)])
    for parameter in _present(mlp, "W_in", "W_gate", "b_in"):
        edit.set(parameter, 0, pruned)
    edit.set(mlp.W_out, 0, pruned[:, None])


def _bake_value(edit: WeightEdit, block: Any, pruned: Layer, means: Means) -> None:
    attention = block.attn
    group = attention.W_O.shape[0] // len(pruned)
    _cut_outputs(edit, attention, pruned.repeat_interleave(group, 0), means.repeat_interleave(group, 0))
    _cut_values(edit, attention, pruned)


def _bake_pre_out(edit: WeightEdit, block: Any, pruned: Layer, means: Means) -> None:
    attention = block.attn
    _cut_outputs(edit, attention, pruned, means)
    _cut_values(edit, attention, pruned)


def _cut_outputs(edit: WeightEdit, attention: Any, pruned: Layer, means: Means) -> None:
    _keep_constant(edit, attention.b_O, means[pruned], attention.W_O[pruned.to(attention.W_O.device)])
    edit.set(attention.W_O, 0, pruned[..., None])


def _cut_values(edit: WeightEdit, attention: Any, pruned: Layer) -> None:
    """Cut value weights, unless other query heads may still read them: fewer are stored than there are units."""
    weight, bias = value_parameters(attention)
    if len(weight) != len(pruned):
        return
    edit.set(weight, 0, pruned[:, None])
    edit.set(bias, 0, pruned)


def _keep_constant(edit: WeightEdit, bias: Tensor, means: Tensor, rows: Float[Tensor, "unit d_model"]) -> None:
    if means.any():
        edit.set(bias, bias + (means.to(rows.device) @ rows.double()).to(bias))


def value_parameters(attention: Any) -> tuple[Tensor, Tensor]:
    """W_V `value_head d_model d_head` and b_V `value_head d_head` as they are stored, ungrouped or grouped."""
    grouped = hasattr(attention, "_W_V")
    return (attention._W_V, attention._b_V) if grouped else (attention.W_V, attention.b_V)


def check_values_add_up(model: Any) -> None:
    """Raise `DissectError` unless a constant value gives a constant output, as a bias does.

    It does not where values are clamped behind their hook, nor where rows of the pattern sum to less than one.
    """
    for flag, is_set in (("clip_qkv", model.cfg.clip_qkv is not None), ("sinks", model.cfg.use_attention_sinks)):
        if is_set:
            raise DissectError(
                f"{model.cfg.model_name} has attention with {flag}, so that values cannot be moved into weights; prune "
                "it by hooks (dissect.ablate), without the SVD rotation, or set values to zero"
            )


def _present(module: Any, *names: str) -> Iterator[Tensor]:
    return (getattr(module, name) for name in names if getattr(module, name, None) is not None)


_BAKE = {"mlp": _bake_mlp, "value": _bake_value, "pre_out": _bake_pre_out, "head": _bake_pre_out}
