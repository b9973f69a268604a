"""Single tokens as text a person can read, whatever the tokenizer."""

from __future__ import annotations

from functools import cache
from typing import Any

REPLACEMENT = "�"


def token_text(tokenizer: Any, token: int) -> str:
    """What a token stands for.

    A leading space is kept (sentencepiece's ▁ too). A token that is part of a character shows its bytes, as
    `\\xe2\\x80`; one without a text, or without a tokenizer, its number, as `#17`.
    """
    if tokenizer is None:
        return f"#{token}"
    piece = tokenizer.convert_ids_to_tokens(token)
    if piece is None:
        return f"#{token}"
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if REPLACEMENT in text:
        return _as_bytes(piece) or text
    if piece.startswith("▁") and not text.startswith(" "):
        text = " " + text
    return text or piece


def _as_bytes(piece: str) -> str | None:
    """The bytes of a piece of byte-level BPE or of sentencepiece's byte fallback; None for any other piece."""
    if piece.startswith("<0x") and piece.endswith(">"):
        return f"\\x{piece[3:-1].lower()}"
    table = _byte_of()
    if not all(char in table for char in piece):
        return None
    return _with_escapes(bytes(table[char] for char in piece))


def _with_escapes(raw: bytes) -> str:
    """UTF-8 where it is that, escapes where it is not."""
    return raw.decode("utf-8", errors="backslashreplace")


@cache
def _byte_of() -> dict[str, int]:
    """The byte that each character of byte-level BPE (introduced by GPT-2) stands for."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode  # transformers takes seconds to import

    return {character: byte for byte, character in bytes_to_unicode().items()}
