"""Windows without the positions after the last that counts, where none before them depends on those."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from dissect.backend.fast.support import Hooked, follows_its_class, hooked_modules, is_plain_decoder
from dissect.backend.hooks import hooks_if_all_ours

STEP = 64  # lengths are multiples of it: on a CPU a kernel is made, and kept, for every length that occurs


def looks_back_only(model: Any) -> bool:
    """True where no position depends on a later one: modules and hooks that are not ours may look anywhere."""
    hooked = hooked_modules(model)
    return (
        is_plain_decoder(model, hooked)
        and model.cfg.attention_dir == "causal"
        and not model.cfg.use_dynamic_ntk_rope
        and all(_is_known(part, hooked) for part in model.modules() if part not in (model, model.blocks))
        and all(block.attn._attention_dir_override is None for block in model.blocks)
    )


def _is_known(part: Any, hooked: Hooked) -> bool:
    from transformer_lens.hook_points import HookPoint

    if isinstance(part, HookPoint):
        return part not in hooked or hooks_if_all_ours(part) is not None
    return follows_its_class(part, hooked)


def up_to_the_last(wanted: Bool[Tensor, "window position"]) -> list[int]:
    """How many positions from the first on, in steps, hold all wanted positions of each window."""
    width = wanted.shape[1]
    last = (torch.arange(width) * wanted).amax(1)
    return [min(width, STEP * (position // STEP + 1)) for position in last.tolist()]
