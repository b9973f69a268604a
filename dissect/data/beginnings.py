"""The beginnings of documents, taken out of windows that hold several."""

from __future__ import annotations

from dissect.data.windows import Windows


def beginnings(windows: Windows, n: int, tokens: int) -> list[list[int]]:
    """BOS and up to `tokens` first tokens of `n` documents in their order; those of so many before shorter ones."""
    found, seen = [], -1
    for row, documents in zip(windows.tokens.tolist(), windows.documents.tolist(), strict=True):
        for document in documents:
            if document > seen:  # its first token, which is BOS
                seen = document
                found.append([token for token, of in zip(row, documents, strict=True) if of == document][: tokens + 1])
    usable = [ids for ids in found if len(ids) > 1]
    return sorted(usable, key=lambda ids: len(ids) <= tokens)[:n]
