"""Standard output and error that never stop the work: what cannot be printed is left out."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

DISABLE = "TQDM_DISABLE"
STREAMS = {"stdout": 1, "stderr": 2}


class _Sink(io.FileIO):
    """A file descriptor that takes what it can; `lost` is the first error with the rest."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
            error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as failure:
            written, error = None, failure
        if written is None:
            self.lost = self.lost or error
            return len(data)
        return written


def shows_bars(stream: Any) -> bool:
    """True for a terminal's stream and a notebook's: elsewhere a bar is noise."""
    if type(stream).__module__.startswith("ipykernel"):
        return True
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, OSError, ValueError):  # closed, or no file
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the `with` block other libraries show no bars, as far as `tqdm` is imported there first."""
    before = os.environ.setdefault(DISABLE, "")
    os.environ[DISABLE] = before or "1"
    try:
        yield
    finally:
        os.environ[DISABLE] = before
        if not before:
            del os.environ[DISABLE]


@contextmanager
def lasting() -> Iterator[dict[str, OSError]]:
    """Inside the `with` block no print raises: not to a closed pipe or a full disk, not without a stream, and not for
    characters that the stream cannot encode, which are written as `\\xe9`.

    Gives a dict that, after the block, holds the first error of each of `stdout` and `stderr` that lost something that
    somebody wanted: a reader that went away did not.
    """
    lost: dict[str, OSError] = {}
    sinks: dict[str, _Sink] = {}
    _open_missing()
    with ExitStack() as stack:
        for name in STREAMS:
            stack.enter_context(_replaced(name, sinks))
        yield lost
    lost |= {name: sink.lost for name, sink in sinks.items() if sink.lost and sink.lost.errno != errno.EPIPE}


def _open_missing() -> None:
    """Open closed descriptors to the null device: else the next file opened would become standard output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


@contextmanager
def _replaced(name: str, sinks: dict[str, _Sink]) -> Iterator[None]:
    """`sys.stdout` or `sys.stderr` over a `_Sink`; not where a notebook or a test has put something else there."""
    before: Any = getattr(sys, name)
    number = STREAMS[name] if before is None or getattr(before, "closed", False) else _descriptor(before)
    if number is None:
        yield
        return
    with suppress(OSError, ValueError, AttributeError):  # full, closed or nothing
        before.flush()  # type: ignore[union-attr]
    sinks[name] = _Sink(number, "w", closefd=False)
    buffer, encoding = io.BufferedWriter(sinks[name]), getattr(before, "encoding", None)
    stream = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=True)
    setattr(sys, name, stream)
    try:
        yield
    finally:
        stream.flush()
        setattr(sys, name, before)


def _descriptor(stream: Any) -> int | None:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with python -u there is no buffer
    return raw.fileno() if isinstance(raw, io.FileIO) else None
