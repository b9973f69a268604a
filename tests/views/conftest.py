"""Runs to draw."""

from __future__ import annotations

import pytest

from tests.support.runs import small_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [small_run(folder / "score"), small_run(folder / "random", selector="random")]
