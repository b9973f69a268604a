"""The README's table of promises: each names tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def promises() -> dict[str, list[tuple[str, str]]]:
    """The tests that stand behind each promise, as file and name."""
    section = (ROOT / "README.md").read_text().split("## What is promised")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
    return {promise.strip(): re.findall(r"`(test_\w+)\.(\w+)`", tests) for promise, tests in rows}


def test_every_promise_names_a_test():
    assert len(promises()) > 15
    assert all(promises().values())


def test_the_tests_behind_the_promises_are_there():
    for promise, tests in promises().items():
        for module, name in tests:
            tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text())
            found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in found, f"{promise}: {module}.{name}"
