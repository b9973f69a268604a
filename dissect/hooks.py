"""Hooks that are ours to remove: attached to a hook point for a `with` block, or until a handle is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Hook = Callable[[Tensor], Tensor | None]


@dataclass(eq=False)
class Handle:
    """Hooks on a model, as permanent ones: `reset_hooks()` leaves them, `remove()` takes them off."""

    _hooks: list[tuple[Any, Any]] = field(default_factory=list)

    def add(self, point: Any, hook: Hook) -> None:
        """Attach `hook(activation) -> activation or None` to a TransformerLens hook point."""
        call = hook  # TransformerLens passes the hook point by the keyword `hook`
        point.add_perma_hook(lambda activation, hook: call(activation))
        self._hooks.append((point, point.fwd_hooks[-1]))

    def remove(self) -> None:
        """Take every hook off, those that are still there; a second call does nothing."""
        while self._hooks:
            point, handle = self._hooks.pop()
            handle.hook.remove()
            point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]


def attach(pairs: Iterable[tuple[Any, Hook]]) -> Handle:
    """Attach every `(hook point, hook)`, all or none."""
    handle = Handle()
    try:
        for point, hook in pairs:
            handle.add(point, hook)
    except BaseException:
        handle.remove()
        raise
    return handle


@contextmanager
def hooked(pairs: Iterable[tuple[Any, Hook]]) -> Iterator[None]:
    """Attach for a `with` block; no hook is left behind, also after an exception."""
    handle = attach(pairs)
    try:
        yield
    finally:
        handle.remove()
