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

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dissect.ablation.by_hooks import check_cut, read_mask, replacement
from dissect.ablation.weight_edit import WeightEdit
from dissect.backend.anatomy import why_values_do_not_add_up
from dissect.backend.sites import SITES, hook_points
from dissect.backend.weights import UnitWeights, weights_of
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
    sites = [SITES[name] for name in mask.sites]
    for site in sites:
        hook_points(model, site)
    if value == "mean" and any(site.mixed for site in sites):
        check_values_add_up(model)
    edit = WeightEdit()
    with torch.no_grad(), edit.or_nothing():
        for site in sites:
            pruned, means = read_mask(site, mask[site.name], model.cfg), replacement(site, value, stats, model.cfg)
            for layer in pruned.flatten(1).any(1).nonzero().flatten().tolist():
                instead = torch.zeros(pruned[layer].shape, dtype=torch.float64) if means is None else means[layer]
                _bake_layer(edit, weights_of(site, model, layer), pruned[layer], instead)
        return edit


def _bake_layer(
    edit: WeightEdit, weights: UnitWeights, pruned: Bool[Tensor, " *unit"], means: Float[Tensor, " *unit"]
) -> None:
    """Set to zero what units write, and what makes them where it makes no others; keep what their means add."""
    rows, instead = weights.at_output(pruned), weights.at_output(means)
    written = weights.output[rows.to(weights.output.device)]
    if instead[rows].any():
        edit.add_to_bias(weights, instead[rows].to(written.device) @ written.double())
    edit.set(weights.output, 0, rows[..., None])
    if weights.make_alone(pruned):
        for weight in weights.inputs:
            edit.set(weight, 0, pruned.unsqueeze(-2))
        for bias in weights.input_biases:
            edit.set(bias, 0, pruned)


def check_values_add_up(model: Any) -> None:
    """Raise `DissectError` unless a constant value gives a constant output, as a bias does.

    It does not where values are clamped after their hook, nor where rows of the pattern sum to less than one.
    """
    if reason := why_values_do_not_add_up(model):
        raise DissectError(
            f"{model.cfg.model_name} has attention with {reason}, so that values cannot be moved into weights; prune "
            "it by hooks (dissect.ablate), without the SVD rotation, or set values to zero"
        )
