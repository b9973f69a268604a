"""What must be undone is undone, also where an interrupt falls into the undoing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def undoing(undo: Callable[[], None]) -> Iterator[None]:
    """Call `undo` when the block ends, and again in case Ctrl-C cut the first call short.

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
