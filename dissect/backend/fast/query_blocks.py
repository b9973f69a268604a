"""Attention by matrix products, for a block of queries at a time, forward and back.

torch's fused kernel takes twice as long in bfloat16 on a CPU, and three times as long on the way back. The pattern is
computed again there, and never kept: memory does not grow with the square of a window's length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

QUERIES = 64  # in a block; with 512 tokens of windows a core the scores then stay in its cache
TOKENS = 512

Heads = Float[Tensor, "window position head d_head"]
KeyHeads = Float[Tensor, "window position value_head d_head"]
Rows = Float[Tensor, "window_and_group row d_head"]
"""The query heads of a group are rows of one product with their keys."""
Keys = Float[Tensor, "window_and_group key d_head"]


def attend_in_blocks(q: Heads, k: KeyHeads, v: KeyHeads) -> Heads:
    """softmax(q kᵀ) v over the positions up to each query's own; query heads share keys in groups."""
    return _InBlocks.apply(q, k, v)  # type: ignore[return-value]


class _InBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Heads, k: KeyHeads, v: KeyHeads) -> Heads:
        z = torch.empty_like(q)
        for few in _few_windows(q, k, v, z):
            _attend(*few)
        ctx.save_for_backward(q, k, v, z)
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Heads) -> tuple[Heads, KeyHeads, KeyHeads]:
        q, k, v, z = ctx.saved_tensors
        of_q, of_k, of_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for few in _few_windows(q, k, v, z, gradients[0], of_q, of_k, of_v):
            _attend_back(*few)
        return of_q, of_k, of_v


def _attend(q: Heads, k: KeyHeads, v: KeyHeads, z: Heads) -> None:
    """Writes z."""
    keys, values = _by_group(k), _by_group(v)
    for block in _blocks(q):
        pattern = _pattern(_rows(q, block, k), keys, block)
        _write(z, block, torch.bmm(pattern, values[:, : block.stop]))


def _attend_back(
    q: Heads, k: KeyHeads, v: KeyHeads, z: Heads, of_z: Heads, of_q: Heads, of_k: KeyHeads, of_v: KeyHeads
) -> None:
    """Writes the gradients of q, k and v. The scores' is that of the pattern less its mean, times the pattern."""
    keys, values = _by_group(k), _by_group(v)
    sum_k, sum_v = (torch.zeros_like(x, dtype=torch.float32) for x in (keys, values))
    for block in _blocks(q):
        rows, result, given = (_rows(x, block, k) for x in (q, z, of_z))
        pattern = _pattern(rows, keys, block)
        sum_v[:, : block.stop] += torch.bmm(pattern.mT, given)
        mean = (given.float() * result.float()).sum(-1, keepdim=True)
        slope = torch.bmm(given, values[:, : block.stop].mT).sub_(mean).mul_(pattern)
        sum_k[:, : block.stop] += torch.bmm(slope.mT, rows)
        _write(of_q, block, torch.bmm(slope, keys[:, : block.stop]))
    for gradient, total in ((of_k, sum_k), (of_v, sum_v)):
        gradient[:] = total.unflatten(0, (len(k), -1)).transpose(1, 2)


def _few_windows(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Whole windows for each core: the three key heads of one are no work for two."""
    windows = torch.get_num_threads() * max(1, TOKENS // tensors[0].shape[1])
    return zip(*(x.split(windows) for x in tensors), strict=True)


def _blocks(q: Heads) -> Iterator[slice]:
    positions = q.shape[1]
    return (slice(start, min(start + QUERIES, positions)) for start in range(0, positions, QUERIES))


def _by_group(k: KeyHeads) -> Keys:
    return rearrange(k, "window position group d_head -> (window group) position d_head")


def _rows(x: Heads, block: slice, k: KeyHeads) -> Rows:
    groups = k.shape[2]
    return rearrange(
        x[:, block], "window query (group head) d_head -> (window group) (head query) d_head", group=groups
    )


def _write(x: Heads, block: slice, rows: Rows) -> None:
    """The reverse of `_rows`, into x."""
    windows, queries = len(x), block.stop - block.start
    shape = {"window": windows, "query": queries}
    x[:, block] = rearrange(rows, "(window group) (head query) d_head -> window query (group head) d_head", **shape)


def _pattern(rows: Rows, keys: Keys, block: slice) -> Float[Tensor, "window_and_group row seen"]:
    scores, queries = torch.bmm(rows, keys[:, : block.stop].mT), block.stop - block.start
    later = torch.ones(queries, queries, dtype=torch.bool).triu_(1)
    scores.unflatten(1, (-1, queries))[..., block.start :].masked_fill_(later, -torch.inf)
    return scores.softmax(-1)
