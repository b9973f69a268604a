"""A server whose children are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dissect.base.streams import DISABLE

ROOT = Path(__file__).parents[2]

# Other libraries' bars are off, as they are before the command line imports them.
PROGRAM = f"""
import os, tests
os.environ[{DISABLE!r}] = "1"
from tests.support.fault_server import serve
serve()
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked and killed as POSIX does it")


class Server:
    """The client of `tests.support.fault_server`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, line: str) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, job: str, **arguments) -> int:
        return self.ask(f"start {job} {json.dumps(arguments, default=str)}")

    def wait(self, pid: int) -> tuple[int, str]:
        code = self.ask(f"wait {pid}")
        output = self.folder / f"{pid}.txt"
        return code, output.read_text() if output.exists() else ""

    def do(self, job: str, **arguments) -> tuple[int, str]:
        return self.wait(self.start(job, **arguments))

    def close(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0
