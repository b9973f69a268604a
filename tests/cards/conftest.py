"""A named run for the tests of its cards and samples; its model and its text are in `folder`."""

from __future__ import annotations

import pytest

from tests.support import tiny
from tests.support.named_runs import run_of

WORDS = {"code": "def f(x): return x\n", "prose": "the cat sat on a mat. "}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two corpora of short documents, and a tiny model."""
    folder = tmp_path_factory.mktemp("named")
    for name, words in WORDS.items():
        (folder / name).mkdir()
        for number in range(40):
            (folder / name / f"{number}.txt").write_text(f"{number} " + words * (3 + number % 5))
    tiny.save_tiny("llama", folder / "model")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return run_of(folder, "run")
