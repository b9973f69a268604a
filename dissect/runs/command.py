"""The command that this process runs, for a run's record."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_typed: ContextVar[list[str] | None] = ContextVar("dissect.runs.command", default=None)


@contextmanager
def typed(command: list[str]) -> Iterator[None]:
    """Inside the `with` block, `command` is what was typed."""
    token = _typed.set(command)
    try:
        yield
    finally:
        _typed.reset(token)


def command() -> list[str] | None:
    """What was typed: dissect's own command line, or a script's; None in a notebook or at a Python prompt."""
    if _typed.get() is not None:
        return _typed.get()
    interactive = not sys.argv[0] or hasattr(sys, "ps1") or "ipykernel" in sys.modules
    return None if interactive else [Path(sys.argv[0]).name, *sys.argv[1:]]
