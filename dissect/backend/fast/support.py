"""What the quick pass may replace: modules that are TransformerLens' own, unpatched, with nobody watching inside."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

# Olmo norms queries and keys before the heads part, and its blocks norm what they put out.
OTHER_ORDER = ("OlmoeForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM")


def follows_its_class(module: Any) -> bool:
    """True where `module(x)` does what TransformerLens' class says, and nothing else happens on the way."""
    return (
        type(module).__module__.startswith("transformer_lens.components.")
        and "forward" not in vars(module)
        and not module.training
        and not _has_torch_hooks(module)
    )


def is_plain_decoder(model: Any) -> bool:
    """True for a decoder on one device whose blocks are called one behind the other."""
    cfg = model.cfg
    return (
        type(model).__module__ == "transformer_lens.HookedTransformer"
        and not {"forward", "input_to_embed"} & set(vars(model))
        and not _has_torch_hooks(model)
        and not torch_module._global_forward_hooks
        and not torch_module._global_forward_pre_hooks
        and cfg.n_devices == 1
        and cfg.positional_embedding_type in ("standard", "rotary")
        and cfg.original_architecture not in OTHER_ORDER
    )


def observed(module: nn.Module) -> bool:
    """True where a hook is on the module or on anything in it."""
    return any(_has_torch_hooks(part) for part in module.modules())


def watched(module: nn.Module, *names: str) -> bool:
    """True where a hook is on one of the module's hook points called `names`."""
    return any(_has_torch_hooks(getattr(module, name)) for name in names)


def _has_torch_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
