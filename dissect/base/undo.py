"""Undo what must be undone, also when an interrupt arrives during the undoing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def undoing(undo: Callable[[], None]) -> Iterator[None]:
    """Call `undo` when the block ends, and again if Ctrl-C interrupted the first call.

    `undo` must be one that can stop anywhere and be called again. Enter before there is anything to undo: then no
    moment is left at which an interrupt loses it.
    """
    try:
        try:
            yield
        finally:
            undo()
    finally:
        undo()
