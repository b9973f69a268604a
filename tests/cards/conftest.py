"""A named run for the tests of its cards and samples; its model and its text are in `folder`."""

from __future__ import annotations

import pytest

from tests.support.named_runs import fill, run_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two corpora of short documents, and a tiny model."""
    return fill(tmp_path_factory.mktemp("named"))


@pytest.fixture(scope="module")
def run(folder):
    return run_of(folder, "run")
