"""Passes for which there is too little memory: made again with half the windows, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tqdm.auto import tqdm

from dissect.errors import DissectError
from dissect.ranks import world_size

T = TypeVar("T")

# What torch and its libraries say on CPUs and GPUs, in errors of several classes.
MESSAGES = ("out of memory", "can't allocate memory", "bad_alloc", "ALLOC_FAILED")


def within_memory(measure: Callable[[int], T], batch_size: int | None, default: int, context: int) -> T:
    """`measure(size)`, where `size` is how many windows of `context` tokens go together.

    That is `batch_size` if there is one. Without, it is `default`, and half of it, again and again, where memory is
    short: everything is measured anew then, so that nothing is in a result twice. Ranks, which must agree, never halve.

    Raises:
        DissectError: There is too little memory nonetheless.
    """
    size = batch_size or default
    while not (found := _unless_short(measure, size)):
        if batch_size or size == 1 or world_size() > 1:
            raise _too_little(size, context)
        size //= 2
        tqdm.write(f"note: out of memory with {2 * size} windows in a batch, trying {size} (batch_size)")
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
