"""Jobs of `tests.support.fault_server` that are what a process of their own would do, without its imports."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any, NoReturn, TextIO

from dissect.cli import main as cli


def program(code: str, args: list[str]) -> None:
    """What `python -c code args` does."""
    sys.argv = ["-c", *args]
    exec(code, {"__name__": "__main__"})


def as_process(listen_at: str) -> None:
    """The command line for one `tests.support.stand_in`, with its streams, folder and environment."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(listen_at)
        listening.listen()
        asking, _ = listening.accept()
    _, streams, _, _ = socket.recv_fds(asking, 1, 3)
    request = json.loads(asking.makefile().readline())
    pid = os.fork()
    if pid == 0:
        _become(request, dict(zip(request["streams"], streams, strict=True)))
    _, status = os.waitpid(pid, 0)
    asking.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(request: dict[str, Any], streams: dict[int, int]) -> NoReturn:
    """What a process does from its first line to its last, with standard streams as Python makes them."""
    for number in range(3):
        os.dup2(streams[number], number) if number in streams else os.close(number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8:strict").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, _stream(number, name, encoding, errors) if number in streams else None)
    status = cli.main(request["args"])
    try:
        if sys.stdout:
            sys.stdout.flush()
    except (OSError, ValueError):
        status = 120  # as at Python's end
    os._exit(status)


def _stream(number: int, name: str, encoding: str, errors: str) -> TextIO:
    errors = "backslashreplace" if name == "stderr" else errors
    by_line = name == "stderr" or os.isatty(number)
    return open(number, "w" if number else "r", 1 if by_line else -1, encoding=encoding, errors=errors)
