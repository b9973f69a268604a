"""Small tokenizers, and a stand-in for a model that has one."""

from __future__ import annotations

from types import SimpleNamespace

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

N_WORDS = 400
BOS = N_WORDS


def word_tokenizer(**roles: str) -> PreTrainedTokenizerFast:
    """Word `w7` is token 7; `<s>` is the token behind the words."""
    vocabulary = {f"w{i}": i for i in range(N_WORDS)} | {"<s>": BOS, "?": BOS + 1}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="?", model_max_length=8, **roles)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, so that cutting a text changes nothing."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>")


def stand_in(tokenizer, n_ctx: int = 64, d_vocab: int = BOS + 2) -> SimpleNamespace:
    return SimpleNamespace(tokenizer=tokenizer, cfg=SimpleNamespace(n_ctx=n_ctx, d_vocab=d_vocab))
