"""What kind of token comes next: a handful of classes that a reader can tell by a token's text alone."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from dissect.data.token_text import token_text

CLASSES = ("word beginning", "word continuation", "number", "punctuation", "white space", "other")


def class_of(text: str) -> str:
    """The class of a token with this text.

    Letters alone begin a word where a space is before them, and go on with one otherwise; so the first word of a line
    counts as going on. Digits are a number. Symbols without letters and digits are punctuation. All else, such as
    `x1`, `__init__`, parts of a character and BOS, is other.
    """
    bare = text.strip()
    if not bare:
        return "white space"
    if bare.isalpha():
        return "word beginning" if text[0].isspace() else "word continuation"
    if bare.isdigit():
        return "number"
    return "other" if any(char.isalnum() for char in bare) else "punctuation"


def classes_of(tokenizer: Any, tokens: Int64[Tensor, " row"]) -> Int64[Tensor, " row"]:
    """The place in `CLASSES` of each token's class."""
    kinds, places = tokens.unique(return_inverse=True)
    found = [CLASSES.index(class_of(token_text(tokenizer, token))) for token in kinds.tolist()]
    return torch.tensor(found, dtype=torch.int64)[places]
