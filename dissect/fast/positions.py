"""Windows without the positions behind the last that counts, where none before them depends on those."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from dissect.fast.support import follows_its_class, is_plain_decoder
from dissect.hooks import hooks_if_all_ours

STEP = 64  # lengths are multiples of it: on a CPU a kernel is made, and kept, for every length that is met


def looks_back_only(model: Any) -> bool:
    """True where no position depends on a later one, as far as one can know: others' hooks may look anywhere."""
    return (
        is_plain_decoder(model)
        and model.cfg.attention_dir == "causal"
        and not model.cfg.use_dynamic_ntk_rope
        and all(follows_its_class(block.attn) and block.attn._attention_dir_override is None for block in model.blocks)
        and all(hooks_if_all_ours(point) is not None for point in model.hook_dict.values())
    )


def up_to_the_last(wanted: Bool[Tensor, "window position"]) -> list[int]:
    """How long the beginning of each window is that holds all its wanted positions, in steps."""
    width = wanted.shape[1]
    last = (torch.arange(width) * wanted).amax(1)
    return [min(width, STEP * (position // STEP + 1)) for position in last.tolist()]
