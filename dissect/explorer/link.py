"""What an explorer and its open pages say to each other, whatever carries it: a notebook's comm or HTTP.

A message is a JSON object and any number of binary buffers: arrays travel as they are, never as text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Message = tuple[dict[str, Any], list[bytes]]
Page = Callable[[dict[str, Any], list[bytes]], None]


class Link:
    """The open pages of an explorer. Every page is told the same."""

    def __init__(self) -> None:
        self._pages: list[Page] = []

    def connect(self, page: Page) -> None:
        """Tell this page, too, what is told from now on."""
        self._pages.append(page)

    def disconnect(self, page: Page) -> None:
        """Tell it no more."""
        if page in self._pages:
            self._pages.remove(page)

    def tell(self, message: Message) -> None:
        """Send a message to every page."""
        content, buffers = message
        for page in list(self._pages):
            page(content, buffers)


def message(kind: str, arrays: Sequence[np.ndarray] = (), **content: Any) -> Message:
    """A message of some kind; arrays are sent in little-endian order in the type that they have."""
    buffers = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in arrays]
    return {"kind": kind} | content, buffers
