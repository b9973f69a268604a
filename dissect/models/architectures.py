"""The model families, recognised by the architecture a transformers config names, never by a model's name.

An entry of `ARCHITECTURES` says how the config translates to TransformerLens (`family_configs`) and where the
weights are (`family_layouts`). Adding a family is adding an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dissect.base.checks import check_whole
from dissect.base.errors import DissectError, look_up
from dissect.models import family_configs as configs
from dissect.models import family_layouts as layouts
from dissect.models.layout import Layout


@dataclass(frozen=True)
class Architecture:
    """A supported family.

    Attributes:
        name: The transformers class, e.g. `OPTForCausalLM`.
        fields: From a transformers config to the fields of a `HookedTransformerConfig`.
        layout: Where the weights are.
        encoder: True for masked language models, which become a `HookedEncoder`.
        unused: Patterns of the names of what its checkpoints are known to hold and its model computes anew or has no
            use for. Any other weight without a place is an error.
    """

    name: str
    fields: Callable[[Any], dict[str, Any]]
    layout: Layout
    encoder: bool = False
    unused: tuple[str, ...] = ()


ROTARY = (r"rotary_emb\.inv_freq$",)  # frequencies, which follow from the config
CAUSAL = (r"attn\.bias$", r"attn\.masked_bias$", r"attention\.bias$", r"attention\.masked_bias$")  # causal masks
ENCODER = (r"^roberta\.pooler\.", r"embeddings\.position_ids$")  # another head, and numbers 0, 1, 2 …

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("OPTForCausalLM", configs.opt, layouts.OPT, unused=(r"decoder\.version$",)),
        Architecture("GPTNeoXForCausalLM", configs.gpt_neox, layouts.GPT_NEOX, unused=ROTARY + CAUSAL),
        Architecture("GPT2LMHeadModel", configs.gpt2, layouts.GPT2, unused=CAUSAL),
        Architecture("LlamaForCausalLM", configs.llama, layouts.LLAMA, unused=ROTARY),
        Architecture("MistralForCausalLM", configs.llama, layouts.LLAMA, unused=ROTARY),
        Architecture("Qwen2ForCausalLM", configs.llama, layouts.LLAMA, unused=ROTARY),
        Architecture("Qwen3ForCausalLM", configs.qwen3, layouts.QWEN3, unused=ROTARY),
        Architecture("GemmaForCausalLM", configs.gemma, layouts.GEMMA, unused=ROTARY),
        Architecture("Gemma2ForCausalLM", configs.gemma2, layouts.GEMMA2, unused=ROTARY),
        Architecture("Gemma3ForCausalLM", configs.gemma3, layouts.GEMMA3, unused=ROTARY),
        Architecture("PhiForCausalLM", configs.phi, layouts.PHI, unused=ROTARY),
        Architecture("Phi3ForCausalLM", configs.llama, layouts.PHI3, unused=ROTARY),
        Architecture("RobertaForMaskedLM", configs.roberta, layouts.ROBERTA, encoder=True, unused=ENCODER),
    )
}


def unused_weights(architecture: str) -> tuple[str, ...]:
    """Patterns of what checkpoints of an architecture may hold beside its weights, also of one that is bridged."""
    known = ARCHITECTURES.get(architecture)
    return ROTARY + CAUSAL if known is None else known.unused


MOST_LAYERS, MOST_SIZE = 1_000, 1 << 24
LAYERS = ("num_hidden_layers", "n_layer")
SIZES = """hidden_size intermediate_size num_attention_heads num_key_value_heads head_dim
vocab_size n_embd n_head n_inner max_position_embeddings n_positions ffn_dim word_embed_proj_dim""".split()


def check_sizes(config: Mapping[str, Any], location: str) -> None:
    """Raise `DissectError` for a config of a model that no machine has room for, before anything is made of it."""
    for names, most in ((LAYERS, MOST_LAYERS), (SIZES, MOST_SIZE)):
        for name in names:
            if config.get(name) is not None:
                check_whole(f"{name} in the config of {location!r}", config[name], 0, most)


def get_architecture(names: Any) -> Architecture:
    """The architecture a config's `architectures` names.

    Raises:
        DissectError: The config names none, or one that is not supported; the message lists those that are.
    """
    if not isinstance(names, list) or not names:
        raise DissectError(
            "the config.json has no `architectures` entry, so the model's family is unknown; "
            f"add one of {', '.join(ARCHITECTURES)}"
        )
    return look_up("architecture", names[0], ARCHITECTURES)
