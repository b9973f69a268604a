"""The model families, recognised by the architecture a transformers config names, never by a model's name.

An entry of `ARCHITECTURES` says how the config translates to TransformerLens (`family_configs`) and where the
weights are (`family_layouts`). Adding a family is adding an entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dissect.errors import DissectError, unknown
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
    """

    name: str
    fields: Callable[[Any], dict[str, Any]]
    layout: Layout
    encoder: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("OPTForCausalLM", configs.opt, layouts.OPT),
        Architecture("GPTNeoXForCausalLM", configs.gpt_neox, layouts.GPT_NEOX),
        Architecture("GPT2LMHeadModel", configs.gpt2, layouts.GPT2),
        Architecture("LlamaForCausalLM", configs.llama, layouts.LLAMA),
        Architecture("MistralForCausalLM", configs.llama, layouts.LLAMA),
        Architecture("Qwen2ForCausalLM", configs.llama, layouts.LLAMA),
        Architecture("Qwen3ForCausalLM", configs.qwen3, layouts.QWEN3),
        Architecture("GemmaForCausalLM", configs.gemma, layouts.GEMMA),
        Architecture("Gemma2ForCausalLM", configs.gemma2, layouts.GEMMA2),
        Architecture("Gemma3ForCausalLM", configs.gemma3, layouts.GEMMA3),
        Architecture("PhiForCausalLM", configs.phi, layouts.PHI),
        Architecture("Phi3ForCausalLM", configs.llama, layouts.PHI3),
        Architecture("RobertaForMaskedLM", configs.roberta, layouts.ROBERTA, encoder=True),
    )
}


def get_architecture(names: list[str] | None) -> Architecture:
    """The architecture a config's `architectures` names.

    Raises:
        DissectError: The config names none, or one that is not supported; the message lists those that are.
    """
    if not names:
        raise DissectError(
            "the config.json has no `architectures` entry, so the model's family is unknown; "
            f"add one of {', '.join(ARCHITECTURES)}"
        )
    if names[0] not in ARCHITECTURES:
        raise unknown("architecture", names[0], ARCHITECTURES)
    return ARCHITECTURES[names[0]]
