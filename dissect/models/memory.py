"""Models that are in memory already: transformers models, copied, and TransformerLens models, taken as they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dissect.base.errors import DissectError, summary
from dissect.models.reading import check_complete

MEMORY = "memory:"  # how a run's record names a model that was handed over


def is_transformers_model(model: Any) -> bool:
    """True for a model of transformers, or one of PEFT around it."""
    from transformers import PreTrainedModel

    return isinstance(model, PreTrainedModel) or is_peft_model(model)


def is_peft_model(model: Any) -> bool:
    """True for a model with an adapter around it that is not merged yet."""
    return any(kind.__module__ == "peft.peft_model" for kind in type(model).__mro__)


def base_of(model: Any) -> Any:
    """The transformers model: `model` itself, or what PEFT wrapped."""
    return model.get_base_model() if is_peft_model(model) else model


def memory_name(model: Any) -> str:
    """How a model handed over is called: what it was made from, or its class."""
    base = base_of(model)
    return MEMORY + (Path(str(getattr(base.config, "name_or_path", "") or "")).name or type(base).__name__)


def copy_of(given: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A transformers model of the same class, config and weights, in evaluation mode; `given` is not changed.

    Adapters of PEFT are merged. Weights are copied before transformers gets them: it may set some anew while it builds
    the model (a padding row to zero), in place. What follows from the config, such as rotary frequencies, is computed
    anew, not rounded twice.

    Raises:
        DissectError: Its weights are quantized, not in memory, or not those of its class.
    """
    _refuse_unusual(given)
    plain = copy.deepcopy(given).merge_and_unload() if is_peft_model(given) else given
    try:
        hf_model, report = type(plain).from_pretrained(
            None,
            config=copy.deepcopy(plain.config),
            state_dict={name: weight.clone() for name, weight in plain.state_dict().items()},
            dtype=dtype,
            output_loading_info=True,
        )
        hf_model = hf_model.to(device)
    except Exception as error:  # transformers and torch raise their own kinds
        raise DissectError(
            f"cannot copy the {type(plain).__name__} that was given: {summary(error)}; save it with "
            "save_pretrained(folder), and load the folder"
        ) from error
    check_complete(report, memory_name(given), type(plain).__name__)
    return hf_model.eval()


def _refuse_unusual(given: Any) -> None:
    if getattr(base_of(given), "is_quantized", False):
        raise DissectError(
            "the model that was given is quantized, which cannot be copied; load it by name: "
            "dissect.load_model(name or folder, quantization='4bit', bridge=True)"
        )
    if any(parameter.device.type == "meta" for parameter in given.parameters()):
        raise DissectError(
            "weights of the model that was given are not in memory (device 'meta'); load it without offloading, or "
            "give its name"
        )


@contextmanager
def evaluating(model: Any) -> Iterator[Any]:
    """The model in evaluation mode inside a `with` block; every part has its own mode again afterwards."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        yield model.eval()
    finally:
        for part, mode in modes:
            part.training = mode


def refuse_folded_biases(model: Any) -> None:
    """Raise `DissectError` for a `HookedTransformer` whose value biases TransformerLens has moved behind attention.

    Values without their bias are other values: what is cut at `hook_v` or `hook_z` is another function then. Norms
    that are folded, and weights that are centred, leave every site's activations as they are.
    """
    attentions = [block.attn for block in model.blocks if hasattr(block, "attn")]
    with torch.no_grad():
        folded = any(attention.b_O.any() for attention in attentions) and not any(
            attention.b_V.any() for attention in attentions
        )
    if folded and str(model.cfg.normalization_type).endswith("Pre"):
        raise DissectError(
            f"the value biases of {model.cfg.model_name!r} are folded into its output biases, so that cutting a value "
            "would not cut its bias; load it with dissect.load_model(name), or with "
            "HookedTransformer.from_pretrained_no_processing(name)"
        )
