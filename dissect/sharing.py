"""Text that is on both sides of a run: counted for its record, and said to the user."""

from __future__ import annotations

from typing import Any

from dissect.records import SPLITS
from dissect.windows import Windows

Pairs = dict[str, tuple[Windows, Windows]]


def shared_documents(windows: Pairs) -> dict[str, int]:
    """Documents that the forget and the retain windows have in common, by split; those given as tokens have none."""
    sides = zip(windows["forget"], windows["retain"], strict=True)
    return {split: len(forget.texts & retain.texts) for split, (forget, retain) in zip(SPLITS, sides, strict=True)}


def warning(windows: Pairs) -> str:
    """What a user should know about text on both sides before a run; empty where there is none."""
    forget, retain = (windows[side][0] for side in ("forget", "retain"))
    if forget.tokens_fingerprint == retain.tokens_fingerprint:
        return "forget and retain are the same text: every score is near 1, and what is pruned is left to chance"
    found: dict[str, Any] = shared_documents(windows)
    if not any(found.values()):
        return ""
    counts = " and ".join(f"{count:,} {split}" for split, count in found.items())
    return f"{counts} documents are on both sides, forget and retain; their units score lower than they would"
