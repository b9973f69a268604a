"""A model's tokenizer, as it is: TransformerLens would make it prepend BOS, and invent an end-of-text token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dissect.errors import DissectError, summary

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


def load_tokenizer(location: str, *, local_only: bool) -> Any:
    """The model's tokenizer, or None where its folder has none.

    Raises:
        DissectError: There is one, and transformers cannot read it.
    """
    from transformers import AutoTokenizer

    folder = Path(location)
    if folder.is_dir() and not any((folder / name).is_file() for name in VOCABULARIES):
        return None
    try:
        return AutoTokenizer.from_pretrained(location, local_files_only=local_only, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise DissectError(f"cannot read the tokenizer of {location!r}: {summary(error)}") from error


def attach_tokenizer(model: Any, tokenizer: Any, config: Any) -> None:
    """Gives the model its tokenizer as it is, padding on the right, with special tokens it leaves unnamed.

    Not by `set_tokenizer` of TransformerLens, which reads the tokenizer a second time and changes what it encodes.
    """
    model.tokenizer = tokenizer
    if tokenizer is None:
        return
    tokenizer.padding_side = "right"
    for role in ("eos", "bos", "pad"):
        _name_special_token(tokenizer, role, getattr(config, f"{role}_token_id", None))
    model.cfg.tokenizer_prepends_bos = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]


def _name_special_token(tokenizer: Any, role: str, token: int | list[int] | None) -> None:
    """Names a special token the tokenizer leaves open: the config's (Galactica), else the end of text."""
    if getattr(tokenizer, f"{role}_token") is not None:
        return
    # Only a token that is special: configs also carry ids that are no more than their class's default.
    added = tokenizer.added_tokens_decoder.get(token) if isinstance(token, int) else None
    setattr(tokenizer, f"{role}_token", added.content if added is not None and added.special else tokenizer.eos_token)
