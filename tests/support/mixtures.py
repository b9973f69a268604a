"""Tiny mixtures of experts, bridged, and a calculation of them that goes through every expert at every position."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import linear

from dissect.models.adopt import adopt
from tests.support import tiny

EXPERTS, WIDTH, ROUTED = 4, 40, 2
ROUTING = {"num_experts_per_tok": ROUTED}
SPARSE = {**ROUTING, "num_experts": EXPERTS, "moe_intermediate_size": WIDTH, "decoder_sparse_step": 1}
LAYERS = 2
GROUPED = {**tiny.GROUPED, "num_hidden_layers": LAYERS}


def mixtral(**changes: Any) -> Any:
    sizes = {**GROUPED, **ROUTING, "num_local_experts": EXPERTS, "intermediate_size": WIDTH, "sliding_window": None}
    return tiny._random("MixtralForCausalLM", "MixtralConfig", **{**sizes, **changes})


def _olmoe() -> Any:
    sizes = {**GROUPED, **ROUTING, "num_experts": EXPERTS, "intermediate_size": WIDTH}
    return tiny._random("OlmoeForCausalLM", "OlmoeConfig", **sizes)


def _qwen2(**changes: Any) -> Any:
    sizes = {**GROUPED, **SPARSE, "shared_expert_intermediate_size": 24}
    return tiny._random("Qwen2MoeForCausalLM", "Qwen2MoeConfig", **{**sizes, **changes})


def _qwen3() -> Any:
    return tiny._random("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **{**GROUPED, **SPARSE, "head_dim": 16})


def _gpt_oss() -> Any:
    """As wide as the residual stream, as the real one is."""
    sizes = {**GROUPED, **ROUTING, "num_local_experts": EXPERTS, "intermediate_size": 48, "head_dim": 16}
    return tiny._random("GptOssForCausalLM", "GptOssConfig", **sizes, sliding_window=16)


MIXTURES: dict[str, Callable[[], Any]] = {
    "mixtral": mixtral,
    "olmoe": _olmoe,
    "qwen2-moe": _qwen2,
    "qwen3-moe": _qwen3,
    "gpt-oss": _gpt_oss,
}


def mixture(name: str) -> Any:
    """A tiny mixture as transformers has it."""
    model = MIXTURES[name]()
    model.set_attn_implementation("eager")  # as a bridge computes it
    return model.requires_grad_(False)


def bridged(hf_model: Any) -> Any:
    """A bridge to a copy of a transformers model, as `load_model` makes it."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    inside = copy.deepcopy(hf_model)
    options = {"hf_config": inside.config, "tokenizer": None, "model_name": "tiny mixture"}
    return adopt(build_bridge_from_module(inside, type(inside).__name__, **options))


class Dense:
    """A mixture that computes every expert at every position, and keeps and changes what it computed.

    It stands beside dissect's own forward: nothing is left out where a routing weight is zero.
    """

    def __init__(self, hf_model: Any, mass: Any = None, activations: Any = None):
        """`mass(layer, m)` and `activations(layer, z)` change `token expert` and `token expert d_expert`."""
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

        self.model, self.changes, self.seen = copy.deepcopy(hf_model), (mass, activations), []
        self._layer = 0
        ALL_EXPERTS_FUNCTIONS.register("dense", self._forward)
        self.model.set_experts_implementation("dense")

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        self._layer, self.seen = 0, []
        return self.model(tokens).logits

    def _forward(self, experts: Any, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        change_mass, change_activations = self.changes
        mass = torch.zeros(len(x), experts.num_experts)
        mass[torch.arange(len(x))[:, None], index] = weights
        mass = change_mass(self._layer, mass) if change_mass else mass
        made = [self._product(experts, "gate_up_proj", expert, x) for expert in range(experts.num_experts)]
        z = torch.stack([experts._apply_gate(each) for each in made], 1)
        z = change_activations(self._layer, z) if change_activations else z
        self.seen.append((mass, z * (mass != 0)[..., None]))
        self._layer += 1
        written = [self._product(experts, "down_proj", expert, z[:, expert]) for expert in range(experts.num_experts)]
        return (torch.stack(written, 1) * mass[..., None]).sum(1)

    @staticmethod
    def _product(experts: Any, name: str, expert: int, x: torch.Tensor) -> torch.Tensor:
        weight = getattr(experts, name)[expert]
        bias = getattr(experts, f"{name}_bias", None)
        return linear(x, weight.mT if experts.is_transposed else weight, None if bias is None else bias[expert])


FORGET_TOKENS = torch.arange(tiny.VOCAB // 2)
PLANTED_EXPERT, PLANTED_NEURON = (1, 2), (1, 1, 7)  # layer, expert; layer, expert, unit
TARGET = 10  # the token that the planted unit predicts


def planted(site: str | None) -> Any:
    """A bridged Mixtral in which forget tokens alone use one expert, or one neuron of another, which predicts `TARGET`.

    A residual dimension says which half of the vocabulary a token is of; nothing else writes or reads it. None plants
    nothing.
    """
    hf_model = mixture("mixtral")
    hf_model.model.embed_tokens.weight[:, 0] = -2
    hf_model.model.embed_tokens.weight[FORGET_TOKENS, 0] = 2
    for layer in hf_model.model.layers:
        attention, experts = layer.self_attn, layer.mlp.experts
        attention.o_proj.weight[0] = experts.down_proj[:, 0] = 0
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, layer.mlp.gate):
            reader.weight[:, 0] = 0
        experts.gate_up_proj[:, :, 0] = 0
    experts = hf_model.model.layers[1].mlp.experts
    towards = hf_model.lm_head.weight[TARGET].clone()
    towards[0] = 0
    if site == "expert":
        hf_model.model.layers[1].mlp.gate.weight[PLANTED_EXPERT[1]] = _first_dimension(4)
        experts.gate_up_proj[PLANTED_EXPERT[1]] = _first_dimension(4)
        experts.down_proj[PLANTED_EXPERT[1]] = towards[:, None] / 100
    if site == "expert_mlp":
        _, expert, unit = PLANTED_NEURON
        hf_model.model.layers[1].mlp.gate.weight[expert] = 0  # so that it is routed to as often as not
        experts.gate_up_proj[expert, [unit, WIDTH + unit]] = _first_dimension(4)
        experts.down_proj[expert, :, unit] = towards
    hf_model.lm_head.weight[:, 0] = 0
    return bridged(hf_model)


def _first_dimension(size: float) -> torch.Tensor:
    return size * torch.eye(tiny.GROUPED["hidden_size"])[0]
