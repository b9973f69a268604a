"""Passes that need too much memory: repeated with half the windows, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from dissect.base.errors import DissectError
from dissect.base.progress import say
from dissect.base.ranks import world_size

T = TypeVar("T")

# What torch and its libraries say on CPUs and GPUs, in errors of several classes.
MESSAGES = ("out of memory", "can't allocate memory", "bad_alloc", "ALLOC_FAILED")


def within_memory(measure: Callable[[int], T], batch_size: int | None, default: int, shape: Sequence[int]) -> T:
    """`measure(size)`, where `size` is how many windows go together of all, whose `shape` is `window position`.

    That is `batch_size` if there is one. Without, it is `default`, and half of it, again and again, where memory is
    short: everything is measured anew then, so that nothing is in a result twice. Ranks, which must agree, never halve.

    Raises:
        DissectError: There is too little memory nonetheless.
    """
    size, (windows, context) = batch_size or default, shape
    while not (found := _unless_short(measure, size)):
        at_once = min(size, windows)
        if batch_size or at_once == 1 or world_size() > 1:
            raise _too_little(at_once, context)
        size = at_once // 2
        say(f"note: out of memory with {at_once} windows in a batch, trying batch_size={size}")
    return found[0]


def _unless_short(measure: Callable[[int], T], size: int) -> list[T]:
    """What `measure` gives, or nothing. The error is gone on return, and with it the tensors that its frames hold."""
    try:
        return [measure(size)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return []


def is_out_of_memory(error: BaseException) -> bool:
    """True for what Python, torch and the libraries below it raise where memory is short."""
    return isinstance(error, MemoryError) or any(message in str(error) for message in MESSAGES)


def _too_little(size: int, context: int) -> DissectError:
    fix = f"give batch_size={size // 2}" if size > 1 else "make windows with a smaller context"
    return DissectError(
        f"out of memory with batch_size={size} windows of context={context} tokens; {fix}, or take fewer tokens, a "
        "smaller dtype or another device"
    )
