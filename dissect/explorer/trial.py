"""Trying a choice on a prompt: how the unpruned and the pruned model continue it, and the loss of each token."""

from __future__ import annotations

from dataclasses import dataclass

from dissect.evaluation.continuation import Reading, encode_prompt, read_on
from dissect.explorer.choice import NO_EDITS, Choice, Edits, Settings
from dissect.explorer.evaluator import Evaluator, Tick


@dataclass(frozen=True)
class Trial:
    """The unpruned and the pruned model on one prompt.

    Attributes:
        prompt: The prompt.
        settings: The settings that chose the units.
        unpruned: The prompt, its continuation and losses by the unpruned model.
        pruned: The same by the pruned model.
        edits: What was changed by hand in what the settings chose.
    """

    prompt: str
    settings: Settings
    unpruned: Reading
    pruned: Reading
    edits: Edits = NO_EDITS


def try_prompt(evaluator: Evaluator, choice: Choice, prompt: str, tokens: int, tick: Tick) -> Trial:
    """Continue `prompt` by up to `tokens` tokens, with the unpruned and with the pruned model.

    Raises:
        DissectError: The model cannot continue a text, or the prompt is empty or too long.
    """
    ids = encode_prompt(evaluator.model, prompt, tokens)
    unpruned = read_on(evaluator.model, ids, tokens, lambda fraction: tick(fraction / 2))
    with evaluator.pruned(choice):
        pruned = read_on(evaluator.model, ids, tokens, lambda fraction: tick(0.5 + fraction / 2))
    return Trial(prompt, choice.settings, unpruned, pruned, choice.edits)
