"""Several texts continued side by side with the likeliest tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from dissect.backend.forward import run_blocks, unembed


@torch.no_grad()
def continue_greedily(
    model: Any, rows: Sequence[Sequence[int]], tokens: int, ends: Callable[[list[int]], bool]
) -> list[list[int]]:
    """What follows each row of token ids, up to `tokens` of them, or until `ends` is True of what followed so far.

    All is read anew for every token, with the hooks that are on the model: there is no cache of keys and values that
    a hook could be too late for. Rows are padded on the right, where no token of a causal model looks.
    """
    following: list[list[int]] = [[] for _ in rows]
    going = list(range(len(rows)))
    for _ in range(tokens):
        if not going:
            break
        likeliest = _likeliest(model, [[*rows[row], *following[row]] for row in going])
        for row, token in zip(going, likeliest.tolist(), strict=True):
            following[row].append(token)
        going = [row for row in going if not ends(following[row])]
    return following


def _likeliest(model: Any, rows: list[list[int]]) -> Int64[Tensor, " window"]:
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = torch.tensor(row)
    residual = run_blocks(model, padded)
    last = residual[torch.arange(len(rows), device=residual.device), (lengths - 1).to(residual.device)]
    return torch.cat(list(unembed(model, last))).argmax(1).cpu()
