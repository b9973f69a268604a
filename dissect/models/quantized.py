"""Weights of 4 or 8 bits: made by bitsandbytes when they are read, or in a checkpoint already."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

import torch

from dissect.base.errors import DissectError

INSTALL = "pip install 'dissect[quantized]'"


def check_bitsandbytes(what: str) -> None:
    """Raise `DissectError` unless bitsandbytes is here."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise DissectError(f"{what} is computed by bitsandbytes, which needs: {INSTALL}")


def placement(
    quantization: str | None, device_map: str | None, dtype: torch.dtype, device: torch.device
) -> Mapping[str, Any]:
    """What transformers is told of a model that it quantizes or spreads while it reads: else nothing.

    4 bits are NF4, multiplied in `dtype`. Without a `device_map` all of a quantized model goes to `device`.
    """
    if quantization is None:
        return {} if device_map is None else {"device_map": device_map}
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at every product that inputs are cast
    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if quantization == "8bit"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    )
    return {"quantization_config": config, "device_map": device_map or {"": device}}
