"""The files that a tokenizer is made of, known by their kind: each family of tokenizers has names of its own."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch

# `*token*` are tokenizer_config.json, tokenizer.json, added_tokens.json, special_tokens_map.json, *.tiktoken and more.
TOKENIZER_FILES = (
    "*token*",
    "*vocab*",
    "*.model",
    "*.spm",
    "*merges*",
    "*bpe*",
    "*tekken*",
    "dict.txt",
    "byte_maps.json",
)


def is_tokenizer_file(name: str) -> bool:
    """True for the name of a file that a tokenizer may be made of."""
    return any(fnmatch(name.lower(), kind) for kind in TOKENIZER_FILES)


def tokenizer_files(names: Iterable[str]) -> list[str]:
    """Those of a model's files that a tokenizer may be made of, in order."""
    return sorted(name for name in names if is_tokenizer_file(name))
