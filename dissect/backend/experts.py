"""Mixtures of experts: hook points for whole experts and for the neurons in them, which no bridge has.

transformers lets a function take the place of a mixture's product of experts. Ours makes the same output as its own and
passes two hook points of the layer on the way:

* `hook_expert`, the routing weight of each expert at each position, `window position expert`, 0 where not routed.
* `hook_expert_mlp`, what each expert's `down_proj` reads, as rows: `row d_expert`, one for each position that was
  routed to an expert. `current_routing()` says which.

The neurons' activation is read before the routing weight multiplies it: that is the number which the weights make and
multiply, so that a cut by hook is a cut of weights, and it does not count again what `hook_expert` reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import linear

from dissect.backend.routing import Routing, rows_routed

POINTS = ("hook_expert", "hook_expert_mlp")
IMPLEMENTATION = "dissect"  # the name of our function in transformers
OURS = "expert_points"  # the attribute of experts that holds their hook points


@dataclass(eq=False)
class ExpertPoints:
    """The hook points of a layer's experts, and the shape of the batch that is on its way through the layer."""

    expert: Any
    expert_mlp: Any
    shape: tuple[int, int] = (0, 0)

    def note_shape(self, block: Any, args: tuple, kwargs: dict) -> None:
        """Called before a layer: experts get all positions in one row, and no longer know of which window."""
        self.shape = tuple((args[0] if args else kwargs["hidden_states"]).shape[:2])


def find_experts(block: Any) -> Any:
    """The module that holds a layer's experts, if there is one that runs through transformers' experts interface."""
    # A bridge's wrapper answers with what it wraps, so only what a module itself holds says that it is the one.
    return next((module for module in block.modules() if "is_transposed" in vars(module)), None)


def width(experts: Any) -> int:
    """How many neurons each expert has."""
    return experts.down_proj.shape[1 if experts.is_transposed else 2]


def open_experts(model: Any) -> None:
    """Give a bridged mixture of experts its hook points, in place, and `cfg` the sizes `num_experts` and `d_expert`.

    A model without experts stays as it is, and so does one that has them already.
    """
    experts = [(block, find_experts(block)) for block in model.blocks]
    found = [each for _, each in experts if each is not None]
    if not found:
        return
    _use_our_forward(model.original_model)
    for layer, (block, each) in enumerate(experts):
        if each is not None and not hasattr(each, OURS):
            _add_points(model, layer, block, each)
    model.cfg.num_experts, model.cfg.d_expert = found[0].num_experts, width(found[0])


def parameters_of_experts(experts: Any) -> dict[str, Tensor]:
    """All weights of a layer's experts by name, each `expert ...`."""
    return dict(experts.named_parameters(recurse=False))


def making_weights(experts: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Views of what makes the neurons' activations: weights `expert d_model d_expert`, biases `expert d_expert`."""
    name = "gate_up_proj" if experts.has_gate else "up_proj"
    weight, bias = getattr(experts, name), getattr(experts, f"{name}_bias", None)
    weight = weight if experts.is_transposed else weight.mT
    return _gate_and_up(experts, weight), () if bias is None else _gate_and_up(experts, bias)


def _gate_and_up(experts: Any, made: Float[Tensor, "... made"]) -> tuple[Tensor, ...]:
    if not experts.has_gate:
        return (made,)
    half = width(experts)
    return (made[..., :half], made[..., half:]) if experts.is_concatenated else (made[..., ::2], made[..., 1::2])


def writing_weights(experts: Any) -> Float[Tensor, "expert d_expert d_model"]:
    """What the neurons' activations are multiplied by, as a view."""
    return experts.down_proj if experts.is_transposed else experts.down_proj.mT


def _use_our_forward(model: Any) -> None:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, forward)
    model.set_experts_implementation(IMPLEMENTATION)


def _add_points(model: Any, layer: int, block: Any, experts: Any) -> None:
    """The bridge finds what its parts have when it is made; what they get later has to be told to both."""
    from transformer_lens.hook_points import HookPoint

    points = ExpertPoints(HookPoint(), HookPoint())
    for name, point in zip(POINTS, (points.expert, points.expert_mlp), strict=True):
        setattr(block, name, point)  # names the point within the block
        point.name = f"blocks.{layer}.{name}"
        model._hook_registry[point.name] = point
    block.register_forward_pre_hook(points.note_shape, with_kwargs=True)
    setattr(experts, OURS, points)


def forward(
    experts: Any,
    hidden_states: Float[Tensor, "token d_model"],
    top_k_index: Int64[Tensor, "token k"],
    top_k_weights: Float[Tensor, "token k"],
) -> Float[Tensor, "token d_model"]:
    """What a layer's experts write, as transformers' own loop over experts computes it, through the hook points."""
    points: ExpertPoints = getattr(experts, OURS)
    mass = top_k_weights.new_zeros(len(hidden_states), experts.num_experts).scatter_add_(1, top_k_index, top_k_weights)
    mass = points.expert(mass.unflatten(0, points.shape))
    routing, mass = Routing.of(mass), mass.flatten(0, 1)
    inputs = routing.by_expert(hidden_states[routing.place])
    made = [hidden_states.new_zeros(0, width(experts)), *(_activations(experts, *rows) for rows in inputs)]
    with rows_routed(routing):
        activations = points.expert_mlp(torch.cat(made))
    written = torch.zeros_like(hidden_states)
    for (expert, rows), (_, places) in zip(
        routing.by_expert(activations), routing.by_expert(routing.place), strict=True
    ):
        output = _output(experts, expert, rows) * mass[places, expert, None]
        written.index_add_(0, places, output.to(written.dtype))
    return written


def _activations(experts: Any, expert: int, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_expert"]:
    if experts.has_gate:
        return experts._apply_gate(_product(experts, "gate_up_proj", expert, rows))
    return experts.act_fn(_product(experts, "up_proj", expert, rows))


def _output(experts: Any, expert: int, rows: Float[Tensor, "row d_expert"]) -> Float[Tensor, "row d_model"]:
    output = _product(experts, "down_proj", expert, rows)
    return experts.post_expert_norm(output) if experts.has_post_expert_norm else output


def _product(experts: Any, name: str, expert: int, rows: Float[Tensor, "row read"]) -> Float[Tensor, "row written"]:
    weight = getattr(experts, name)[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
    return linear(rows, weight.mT if experts.is_transposed else weight, bias)
