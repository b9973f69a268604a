"""Text that wants to be more than text."""

from __future__ import annotations

import torch

import dissect
from dissect import Windows
from tests.support.models import tiny_transformer

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    '"><b onmouseover=alert(3)>',
    "\n\t\u202e\x00",
)


class Vocabulary:
    """A tokenizer of 50 tokens, the first of which try to run."""

    bos_token_id = 0
    padding_side = "right"

    def convert_ids_to_tokens(self, token):
        return (*HOSTILE, "Ġspace", "âĢ", "<0xE2>", "▁under")[token] if token < 8 else f"t{token}"

    def decode(self, tokens, **options):
        (token,) = tokens
        return {4: " space", 5: "�", 6: "�", 7: "under"}.get(token, self.convert_ids_to_tokens(token))


def hostile_cards():
    model = tiny_transformer(model_name="<script>alert(0)</script>")
    model.tokenizer = Vocabulary()
    tokens = torch.randint(0, 6, (5, 17), generator=torch.Generator().manual_seed(0))
    windows = Windows.from_tokens(tokens)
    model.unembed.W_U[:, 6:] = 0
    return [
        *dissect.neuron_cards(model, [("mlp", 1, 7)], windows, windows, progress=False),
        *dissect.head_cards(model, [(0, 1)], windows, windows, progress=False),
    ]
