"""Tests stand alone: what several of them need is in `tests/support/` or in a `conftest.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dissect

TESTS = Path(__file__).parent
FROM_A_TEST = re.compile(r"^\s*(?:from|import) +tests\.(?:\w+\.)*(?:test_\w+|conftest)\b", re.M)


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_nothing_is_imported_from_a_test_file(path):
    """Nor in the programs that a test starts, which are text in it."""
    assert FROM_A_TEST.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("line", ["from tests.conftest import model", "    import tests.runs.test_prune as a"])
def test_such_an_import_is_noticed(line):
    assert FROM_A_TEST.findall(f"import dissect\n{line}\n")


def test_folders_are_those_of_the_package():
    of_tests = {path.name for path in TESTS.iterdir() if path.is_dir()} - {"__pycache__"}
    of_package = {path.name for path in Path(dissect.__file__).parent.iterdir() if path.is_dir()}
    assert of_tests - of_package == {"benchmarks", "docs", "support"}
