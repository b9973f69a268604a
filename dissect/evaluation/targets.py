"""What an evaluation asks of a model: which token belongs where.

A causal model is asked for every kept token, at the position before it. A masked model (RoBERTa) is asked for 15% of
the kept tokens where they stand, of which 80% are masked, 10% replaced by another token and 10% left, as in its
training (Devlin et al., 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from dissect.backend.forward import check_readable, is_masked
from dissect.base.checks import check_seed
from dissect.base.errors import DissectError
from dissect.data.windows import Windows

ASKED, MASKED, REPLACED = 0.15, 0.8, 0.1


@dataclass(frozen=True, eq=False)
class Questions:
    """Attributes:
    tokens: What the model reads.
    at: True where it is asked.
    answers: The right token, where `at` is True.
    documents: The document the right token is of, where `at` is True.
    attention_mask: As in `Windows`.
    """

    tokens: Int64[Tensor, "window position"]
    at: Bool[Tensor, "window position"]
    answers: Int64[Tensor, "window position"]
    documents: Int64[Tensor, "window position"]
    attention_mask: Bool[Tensor, "window position"] | None = None


def questions(model: Any, windows: Windows, *, seed: int = 0) -> Questions:
    """The questions of a data set.

    Args:
        model: Decides whether they are causal or masked.
        windows: Every kept position of a causal model's data set is a question.
        seed: Of what a masked model is asked; a causal one has no choice.

    Raises:
        DissectError: There is nothing to ask; or a masked model's tokenizer has no mask token.
    """
    check_readable(model, windows)
    check_seed(seed)
    asked = _masked(model, windows, seed) if is_masked(model) else _causal(windows)
    if not asked.at.any():
        raise DissectError(f"cannot evaluate: no question in {windows.n_kept} kept positions; take more tokens")
    return asked


def _causal(windows: Windows) -> Questions:
    # Position 0 is never kept, so nothing wraps around.
    answers, at, documents = (each.roll(-1, 1) for each in (windows.tokens, windows.keep, windows.documents))
    return Questions(windows.tokens, at, answers, documents, windows.attention_mask)


def _masked(model: Any, windows: Windows, seed: int) -> Questions:
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.mask_token_id is None:
        raise DissectError(
            f"{model.cfg.model_name} is a masked model, and its tokenizer has no mask token; "
            "load the model with its own tokenizer, or set tokenizer.mask_token"
        )
    generator = torch.Generator().manual_seed(seed)
    special = torch.isin(windows.tokens, torch.tensor(tokenizer.all_special_ids))
    places = (windows.keep & ~special).flatten().nonzero().flatten()
    chosen = places[torch.randperm(len(places), generator=generator)[: round(ASKED * len(places))]]
    tokens = windows.tokens.flatten().clone()
    n_masked, n_replaced = round(MASKED * len(chosen)), round(REPLACED * len(chosen))
    tokens[chosen[:n_masked]] = tokenizer.mask_token_id
    replaced = chosen[n_masked : n_masked + n_replaced]
    tokens[replaced] = torch.randint(model.cfg.d_vocab, (len(replaced),), generator=generator)
    at = torch.zeros(len(tokens), dtype=torch.bool)
    at[chosen] = True
    shape = windows.tokens.shape
    read = (tokens.reshape(shape), at.reshape(shape))
    return Questions(*read, windows.tokens, windows.documents, windows.attention_mask)
