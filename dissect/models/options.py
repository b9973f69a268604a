"""How a model is loaded, beside its name. Nothing here imports torch, so that the command line's help stays quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dissect.base.checks import check_fields
from dissect.base.errors import check_name

Quantization = Literal["4bit", "8bit"]


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded, beside its name: what may make another model of the same name.

    Attributes:
        adapter: A PEFT folder or hub id that is merged into the weights.
        bridge: A `TransformerBridge` (True) or a `HookedTransformer` (False); by default the second, if there is one.
        quantization: 4bit or 8bit.
        device_map: As accelerate takes it: auto, balanced, sequential, cpu.
        revision: Branch, tag or commit of a hub model.
        skip_layers: Skip the layers that lack a site; by default a site has to be in every layer.
    """

    adapter: str | None = None
    bridge: bool | None = None
    quantization: str | None = None
    device_map: str | None = None
    revision: str | None = None
    skip_layers: bool = False

    def check(self) -> None:
        """Raise `DissectError` for a value of another kind, or a quantization that there is not."""
        check_fields(self)
        if self.quantization is not None:
            check_name("quantization", self.quantization, get_args(Quantization))
