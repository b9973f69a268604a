"""Attention back in blocks of queries, against torch's own gradient of attention."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from dissect.backend.fast.query_blocks import attend_in_blocks


@pytest.mark.parametrize("positions", [1, 64, 65, 200])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_gradients(positions, groups):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, positions, heads, 8, requires_grad=True) for heads in (6, groups, groups))
    towards = torch.randn(3, positions, 6, 8)
    heads = [x.repeat_interleave(6 // x.shape[2], 2).transpose(1, 2) for x in (q, k, v)]
    plain = scaled_dot_product_attention(*heads, is_causal=True, scale=1).transpose(1, 2)
    ours = attend_in_blocks(q, k, v)
    torch.testing.assert_close(ours, plain)
    wanted = torch.autograd.grad(plain, (q, k, v), towards)
    for found, exactly in zip(torch.autograd.grad(ours, (q, k, v), towards), wanted, strict=True):
        torch.testing.assert_close(found, exactly, rtol=1e-4, atol=1e-5)
