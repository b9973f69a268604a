"""Padding makes windows equally long and is not text. It comes after a window's tokens, and no token reads it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from dissect.base.checks import check_kind
from dissect.base.errors import DissectError

ROLES = ("bos", "eos", "cls", "sep")  # special tokens that may stand at a window's edge


def as_mask(attention_mask: Any, tokens: Tensor) -> Bool[Tensor, "window position"]:
    """An attention mask as tokenizers give it, of zeros and ones or bool.

    Raises:
        DissectError: It is not of tokens' shape, has other values, or more or less than one stretch of ones a window.
    """
    check_kind("attention_mask", attention_mask, Tensor, "a tensor of tokens' shape, 0 or False at padding")
    if attention_mask.shape != tokens.shape or not ((attention_mask == 0) | (attention_mask == 1)).all():
        raise DissectError(
            f"attention_mask must be 0 or False at padding and else 1 or True, of tokens' shape {tuple(tokens.shape)}, "
            f"got {attention_mask.dtype} of shape {tuple(attention_mask.shape)}"
        )
    mask = attention_mask.detach().to("cpu", torch.bool, copy=True)
    begins = mask[:, 0].int() + (mask[:, 1:] & ~mask[:, :-1]).sum(1)
    if (begins != 1).any():
        raise DissectError(
            "attention_mask must mark one stretch of tokens in each window, with padding at its ends alone; "
            f"window {int((begins != 1).int().argmax())} has {int(begins[begins != 1][0])}"
        )
    return mask


def at_first(mask: Bool[Tensor, "window position"]) -> Bool[Tensor, "window position"]:
    """True at each window's first token alone."""
    return mask & (mask.cumsum(1) == 1)


def to_front(values: Tensor, mask: Bool[Tensor, "window position"]) -> Tensor:
    """`values`, `window position`, with what is at padding before a window's tokens moved after them."""
    begin = mask.int().argmax(1, keepdim=True)
    return values.gather(1, (torch.arange(mask.shape[1]) + begin) % mask.shape[1])


def check_is_after(mask: Tensor, keep: Bool[Tensor, "window position"]) -> None:
    """Raise `DissectError` unless `mask` is bool, True from each window's beginning on, and wherever `keep` is."""
    fits = mask.dtype == torch.bool and mask.shape == keep.shape
    if not fits or not mask[:, 0].all() or (mask[:, 1:] & ~mask[:, :-1]).any():
        raise DissectError(
            "attention_mask must be bool and True up to a window's last token, with padding after it alone; "
            "Windows.from_tokens(tokens, attention_mask=...) moves it there"
        )
    if (keep & ~mask).any():
        raise DissectError("keep must be False at padding, where attention_mask is 0 or False")


def seems_padded(
    tokens: Int64[Tensor, "window position"], keep: Bool[Tensor, "window position"], tokenizer: Any
) -> Bool[Tensor, " window"]:
    """True for windows that seem to begin with padding: with a token twice that does not count, or with the pad token.

    A pad token that has another role, as of a model without one of its own, must be there twice.
    """
    pad = getattr(tokenizer, "pad_token_id", None)
    roles = {getattr(tokenizer, f"{role}_token_id", None) for role in ROLES}
    are_pads = tokens[:, :2] == (-1 if pad is None else pad)
    repeated = (tokens[:, 0] == tokens[:, 1]) & ~keep[:, :2].any(1)
    return repeated | are_pads.all(1) | (are_pads[:, 0] & (pad not in roles))
