"""A model's tokenizer, as it is: TransformerLens would make it prepend BOS, and invent an end-of-text token."""

from __future__ import annotations

import copy
import os
import string
from typing import Any

from dissect.base.checks import check_kind
from dissect.base.errors import DissectError, summary
from dissect.base.tokenizer_files import tokenizer_files
from dissect.models.hub import as_location, file_names, hub_is_reachable


def load_tokenizer(location: str, *, local_only: bool, revision: str | None = None) -> Any:
    """The model's tokenizer as transformers finds it, or None where none of the model's files is of a tokenizer.

    Raises:
        DissectError: There are such files, and transformers cannot read them or makes a tokenizer without a
            vocabulary of them.
    """
    from transformers import AutoTokenizer

    tokenizer, problem = None, ""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            location, local_files_only=local_only, revision=revision or "main", trust_remote_code=False
        )
        if not _has_vocabulary(tokenizer):
            problem = f"{type(tokenizer).__name__} has no vocabulary"
    except Exception as error:  # the tokenizers library raises bare Exceptions
        problem = summary(error)
    # Asked for after the tokenizer, since it is then that the hub's files are in its cache.
    found = tokenizer_files(file_names(location, local_only=local_only or not problem, revision=revision))
    if not found:  # some classes make a tokenizer of nothing
        return None
    if not problem:
        return tokenizer
    raise DissectError(
        f"cannot read the tokenizer of {location!r} from {', '.join(found)}: {problem}; save it again with "
        "tokenizer.save_pretrained(folder), or take these files away to load the model without"
    )


def tokenizer_given(tokenizer: Any) -> Any:
    """The tokenizer that a user gave in place of the model's own: a copy, or the one of a name or folder.

    Raises:
        DissectError: It is neither, or there is none there.
    """
    from transformers import PreTrainedTokenizerBase

    if tokenizer is None:
        return None
    if isinstance(tokenizer, (str, os.PathLike)):
        location = as_location("tokenizer", tokenizer)
        found = load_tokenizer(location, local_only=os.path.isdir(location) or not hub_is_reachable())
        if found is None:
            raise DissectError(f"there are no files of a tokenizer at {location!r}; give a folder or hub id with some")
        return found
    check_kind(
        "tokenizer", tokenizer, PreTrainedTokenizerBase, "a tokenizer of transformers, or a name or folder of one"
    )
    return copy.deepcopy(tokenizer)


def _has_vocabulary(tokenizer: Any) -> bool:
    """True if any of the printable characters becomes a token that is not special."""
    tokens = tokenizer(string.printable, add_special_tokens=False)["input_ids"]
    return not set(tokens) <= set(tokenizer.all_special_ids)


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
