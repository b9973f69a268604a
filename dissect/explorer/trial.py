"""Trying a choice on a prompt: how the whole and the pruned model go on, and what each token costs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dissect.evaluation.continuation import Reading, encode_prompt, read_on
from dissect.explorer.bench import Bench
from dissect.explorer.choice import Choice, Settings


@dataclass(frozen=True)
class Trial:
    """The whole and the pruned model on one prompt.

    Attributes:
        prompt: The prompt.
        settings: What chose the units.
        whole: How the whole model reads it.
        pruned: How the pruned one does.
    """

    prompt: str
    settings: Settings
    whole: Reading
    pruned: Reading


def try_prompt(bench: Bench, choice: Choice, prompt: str, tokens: int, tick: Callable[[float], None]) -> Trial:
    """Let the whole and the pruned model continue `prompt` by up to `tokens` tokens.

    Raises:
        DissectError: The model cannot continue a text, or the prompt is empty or too long.
    """
    ids = encode_prompt(bench.model, prompt, tokens)
    whole = read_on(bench.model, ids, tokens, lambda part: tick(part / 2))
    with bench.pruned(choice):
        pruned = read_on(bench.model, ids, tokens, lambda part: tick(0.5 + part / 2))
    return Trial(prompt, choice.settings, whole, pruned)
