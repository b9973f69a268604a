"""Models that are handed over in memory: of transformers, of PEFT around one, and of TransformerLens."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

from dissect.base.checks import check_model, is_bridge
from dissect.base.errors import DissectError, shown
from dissect.models.adopt import adopt, say_skipped
from dissect.models.bridged import twin_of
from dissect.models.classes import choose_class
from dissect.models.find import found_adapter
from dissect.models.memory import MEMORY, base_of, memory_name, refuse_folded_biases
from dissect.models.options import LoadOptions
from dissect.models.parity import check_parity
from dissect.models.source import ModelSource
from dissect.models.tokenizer import attach_tokenizer


def source_in_memory(model: Any, options: LoadOptions) -> ModelSource:
    """The source of a transformers model that was handed over, which it does not keep from being freed.

    Raises:
        DissectError: Neither class takes it, or an option is for models by name.
    """
    _refuse(options, "quantization", "device_map", "revision")
    architecture, bridge = choose_class({"architectures": [type(base_of(model)).__name__]}, options)
    options = replace(options, adapter=found_adapter(options.adapter), bridge=bridge)
    return ModelSource(memory_name(model), "", architecture, True, options, given=weakref.ref(model))


def handed_over(model: Any, tokenizer: Any, options: LoadOptions) -> Any:
    """A TransformerLens model that somebody else loaded, in evaluation mode and without gradients: itself, no copy.

    Raises:
        DissectError: It is none, its value biases are folded, its logits are not those of transformers' model of the
            same weights (a bridge), or an option is for other models.
    """
    bridge = is_bridge(model)
    if not bridge:
        check_model(model)
    _refuse(options, "adapter", "quantization", "device_map", "revision")
    if options.bridge not in (None, bridge):
        raise DissectError(
            f"bridge={options.bridge} was asked for, and the model that was given is a {type(model).__name__}"
        )
    if bridge and hasattr(model, "original_model"):
        check_parity(model.eval(), twin_of(model))
    if not bridge:
        refuse_folded_biases(model)
    adopt(model, skip_layers=options.skip_layers)
    say_skipped(model)
    if tokenizer is not None:
        attach_tokenizer(model, tokenizer, None)
    name = MEMORY + str(model.cfg.model_name)
    architecture = model.cfg.architecture if bridge else str(model.cfg.original_architecture)
    kept = LoadOptions(bridge=bridge, skip_layers=options.skip_layers)
    model.source = ModelSource(name, "", architecture, True, kept)
    return model


def _refuse(options: LoadOptions, *names: str) -> None:
    """Raise `DissectError` for options that a model in memory cannot have."""
    for name in names:
        value = getattr(options, name)
        if value is not None:
            raise DissectError(f"{name}={shown(value)} is for a model that is loaded by name, not for one in memory")
