"""Every promise of the pages names tests, and they are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import FOLDER, ROOT

TESTS = ROOT / "tests"
TEST = re.compile(r"`(test_\w+)\.(test_\w+)`")
FILE = re.compile(r"`(test_\w+\.py)`")


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of each row of the table that begins with `header`."""
    table = (FOLDER / page).read_text(encoding="utf-8").split(header)[1].split("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def promises() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each promise and its tests, as file and name."""
    for promise, tests in rows("guarantees.md", "| promise | test |"):
        yield promise, TEST.findall(tests)


def functions(module: str) -> set[str]:
    """The functions and methods of the test files called `module`, in whichever folder they are."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.rglob(f"{module}.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_are_promises():
    assert len(list(promises())) > 15


@pytest.mark.parametrize(
    ("promise", "tests"), list(promises()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_promise_has_tests_that_are_there(promise, tests):
    assert tests, "a promise names its tests as `file.function`"
    for module, name in tests:
        assert name in functions(module), f"{module}.{name}"


def test_every_cell_of_tests_is_read():
    """What is written in another way would not be looked for."""
    for _, tests in rows("guarantees.md", "| promise | test |"):
        assert TEST.sub("", tests).strip(", ") == "", tests


def test_the_files_behind_the_checks_of_input_are_there():
    for *_, tests in rows("models-and-text.md", "| what you give | what happens | test |"):
        assert FILE.findall(tests)
        for name in FILE.findall(tests):
            assert list(TESTS.rglob(name)), name
