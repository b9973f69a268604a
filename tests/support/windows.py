"""Windows for tests."""

from __future__ import annotations

from typing import Any

import torch

from dissect import Windows
from tests.support.models import D_VOCAB


def random_windows(n_windows: int = 6, context: int = 17, seed: int = 0, d_vocab: int = D_VOCAB) -> Windows:
    generator = torch.Generator().manual_seed(seed)
    return Windows.from_tokens(torch.randint(0, d_vocab, (n_windows, context), generator=generator))


def predictable_windows(model: Any, vocabulary: range, seed: int, n_windows: int = 4, context: int = 17) -> Windows:
    """Windows in which the model predicts many tokens rightly: mostly its own best guess, else one of `vocabulary`.

    Four documents a window.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(vocabulary.start, vocabulary.stop, (n_windows, context), generator=generator)
    own = torch.rand(n_windows, context, generator=generator) < 0.6
    tokens = drawn.clone()
    for position in range(1, context):
        guess = model(tokens[:, :position])[:, -1].argmax(-1)
        tokens[:, position] = torch.where(own[:, position], guess, drawn[:, position])
    documents = 4 * torch.arange(n_windows)[:, None] + 4 * torch.arange(context) // context
    return Windows.from_tokens(tokens, documents=documents)
