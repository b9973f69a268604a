"""How a causal model continues a text, greedily, and the loss of each token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dissect.backend.anatomy import is_masked
from dissect.backend.forward import run_blocks, unembed
from dissect.backend.memory import within_memory
from dissect.base.errors import DissectError
from dissect.data.packing import beginning, encode
from dissect.data.token_text import token_text


@dataclass(frozen=True)
class Reading:
    """A prompt as a model reads it, and its greedy continuation.

    Attributes:
        tokens: The prompt's tokens as text, then those of the continuation; without BOS.
        losses: Cross-entropy of each, given those before it, in nats.
        n_prompt: How many of them are the prompt's.
    """

    tokens: tuple[str, ...]
    losses: tuple[float, ...]
    n_prompt: int

    @property
    def prompt(self) -> str:
        """The text that was given."""
        return "".join(self.tokens[: self.n_prompt])

    @property
    def continuation(self) -> str:
        """The text after the prompt."""
        return "".join(self.tokens[self.n_prompt :])

    @property
    def prompt_loss(self) -> float:
        """Mean loss of the prompt's tokens, in nats."""
        return sum(self.losses[: self.n_prompt]) / self.n_prompt


def why_not(model: Any) -> str:
    """The reason why a model cannot continue a text; empty where it can."""
    if is_masked(model):
        return "a masked model fills gaps from both sides; it does not continue a text"
    return "" if model.tokenizer is not None else "the model has no tokenizer to read a prompt with"


def encode_prompt(model: Any, prompt: str, tokens: int) -> list[int]:
    """The prompt's token ids after BOS, with room for `tokens` more.

    Raises:
        DissectError: There is no room, no prompt, or no way to continue it.
    """
    if reason := why_not(model):
        raise DissectError(reason)
    ids = [token for piece in encode([prompt], model.tokenizer) for token in piece.ids]
    room = model.cfg.n_ctx - tokens - 1
    if not 0 < len(ids) <= room:
        raise DissectError(f"a prompt has 1 to {room} tokens (n_ctx less the continuation), this one has {len(ids)}")
    return [beginning(model.tokenizer), *ids]


def read_on(model: Any, ids: list[int], tokens: int, tick: Callable[[float], None] = lambda part: None) -> Reading:
    """Continue `ids` (BOS first) with the likeliest token, up to `tokens` times or to the end of text.

    Raises:
        DissectError: There is too little memory.
    """
    return within_memory(lambda size: _read_on(model, ids, tokens, tick), 1, 1, (1, len(ids) + tokens))


def _read_on(model: Any, ids: list[int], tokens: int, tick: Callable[[float], None]) -> Reading:
    # Not `model.generate`: its sums are in another order, and in bfloat16 it soon chooses tokens that are not the
    # likeliest by the losses below.
    read = list(ids)
    for step in range(tokens):
        following = _likeliest(model, read)
        tick((step + 1) / tokens)
        if following == model.tokenizer.eos_token_id:
            break
        read.append(following)
    texts = tuple(token_text(model.tokenizer, token) for token in read[1:])
    return Reading(texts, tuple(token_losses(model, read).tolist()), len(ids) - 1)


# Decorators: where a `with` block of ours ends, Ctrl-C could leave gradients off.
@torch.no_grad()
def _likeliest(model: Any, ids: list[int]) -> int:
    residual = run_blocks(model, torch.tensor([ids]))[0]
    return int(torch.cat(list(unembed(model, residual[-1:]))).argmax())


@torch.no_grad()
def token_losses(model: Any, ids: list[int]) -> Float[Tensor, " position"]:
    """The cross-entropy of every token but the first, in nats."""
    residual = run_blocks(model, torch.tensor([ids]))[0, :-1]
    log_p = torch.cat([logits.log_softmax(1).cpu() for logits in unembed(model, residual)])
    return -log_p.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
