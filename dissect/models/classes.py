"""Which class a model is loaded as: a `HookedTransformer`, or a `TransformerBridge`.

The first is quicker and what a known family is loaded as, unless it is asked otherwise. The second takes any
architecture that transformers loads as a causal or masked language model and that the bridge has an adapter for.
TransformerLens 4 has the second alone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dissect.base.errors import DissectError, unknown
from dissect.models.architectures import ARCHITECTURES, get_architecture
from dissect.models.quantized import check_bitsandbytes

if TYPE_CHECKING:
    from dissect.models.options import LoadOptions

ASK = "give bridge=True (--bridge)"


def has_hooked_transformer() -> bool:
    """True where the installed TransformerLens has `HookedTransformer`: up to version 3. Asked without importing it."""
    return int(_version().partition(".")[0]) < 4


def transformer_lens() -> Any:
    """The library, imported so that transformers logs as much as before: its import lowers that level.

    It imports bitsandbytes where that is installed, which then says of some processors which kernels it could not get.
    """
    from transformers.utils import logging as of_transformers

    level, of_bitsandbytes = of_transformers.get_verbosity(), logging.getLogger("bitsandbytes")
    before = of_bitsandbytes.level
    of_bitsandbytes.setLevel(logging.ERROR)
    try:
        return importlib.import_module("transformer_lens")
    finally:
        of_transformers.set_verbosity(level)
        of_bitsandbytes.setLevel(before)


def choose_class(config: Mapping[str, Any], options: LoadOptions) -> tuple[str, bool]:
    """The architecture that a model's config names, and whether it is loaded as a bridge.

    Raises:
        DissectError: Neither class takes it; or only the bridge does, and nobody asked for it.
    """
    names = config.get("architectures")
    if options.bridge or (options.bridge is None and not has_hooked_transformer()):
        return _bridged(names), True
    if not has_hooked_transformer():
        raise DissectError(
            f"transformer-lens {_version()} has no HookedTransformer; leave bridge=False (--no-bridge) out, or "
            "pip install 'transformer-lens<4'"
        )
    for name in ("quantization", "device_map"):
        if getattr(options, name) is not None:
            raise DissectError(f"{name} is for a TransformerBridge alone; {ASK} as well")
    try:
        return get_architecture(names).name, False
    except DissectError as error:
        if isinstance(names, list) and names and is_bridgeable(names[0]):
            raise DissectError(
                f"{names[0]} is not among the architectures that are loaded as a HookedTransformer "
                f"({', '.join(ARCHITECTURES)}); {ASK} to load it as a TransformerBridge"
            ) from error
        raise


def _bridged(names: Any) -> str:
    if not isinstance(names, list) or not names:
        raise DissectError(
            "the config.json has no `architectures` entry, so the model's class is unknown; add the transformers "
            "class, such as LlamaForCausalLM"
        )
    if not is_bridgeable(names[0]):
        raise unknown(f"architecture for a TransformerBridge of transformer-lens {_version()}", names[0], _bridgeable())
    return names[0]


def is_bridgeable(architecture: Any) -> bool:
    """True for a language model's class that transformers has and the installed TransformerLens has a bridge for."""
    return architecture in _bridgeable()


def _bridgeable() -> list[str]:
    import transformers
    from transformers.models.auto import modeling_auto as auto

    transformer_lens()
    factory = importlib.import_module("transformer_lens.factories.architecture_adapter_factory")
    language = {*auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(), *auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()}
    return [name for name in factory.SUPPORTED_ARCHITECTURES if name in language and hasattr(transformers, name)]


def quantization_of(config: Mapping[str, Any]) -> str | None:
    """The method by which a checkpoint's weights are quantized; None where they are not."""
    found = config.get("quantization_config") or config.get("compression_config")
    method = found.get("quant_method") if isinstance(found, Mapping) else None
    return str(method or "an unnamed method") if found else None


def check_quantization(config: Mapping[str, Any], location: str, options: LoadOptions, *, bridge: bool) -> None:
    """Raise `DissectError` for quantized weights in a `HookedTransformer`, or that would be quantized twice."""
    method = quantization_of(config)
    if options.quantization is not None or method == "bitsandbytes":
        check_bitsandbytes("a model of 4 or 8 bits")
    if (options.quantization or method) and options.adapter is not None:
        raise DissectError(
            f"the adapter {options.adapter!r} cannot be merged into quantized weights; load it without quantization, "
            "or merge it with PEFT, save the merged model, and load that with quantization"
        )
    if method is None:
        return
    if not bridge:
        raise DissectError(
            f"{location!r} is quantized ({method}), which a HookedTransformer cannot be; {ASK}, or load an unquantized "
            "checkpoint"
        )
    if options.quantization is not None:
        raise DissectError(f"{location!r} is quantized already ({method}); leave quantization out")


def _version() -> str:
    return importlib.metadata.version("transformer-lens")
