"""The notebooks run top to bottom, and the outputs they are committed with are whole and show without Jupyter.

Each is run once: the first by test_end_to_end.py, the second in JupyterLab by test_jupyter.py, the others here. So each
file, and with it each notebook, is a worker's own.
"""

from __future__ import annotations

import re

import pytest

from tests.support.notebooks import (
    FOLDER,
    NAMES,
    QUICK,
    assert_shows_the_same_forms,
    code_cells,
    data,
    outputs,
    read,
    run,
    to_run,
)

PLOTLY = "application/vnd.plotly.v1+json"


def test_there_are_no_others():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs_are_of_one_run_and_show_anywhere(name):
    notebook = read(name)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert all(output.output_type != "error" for output in outputs(notebook))
    assert all(output.get("name") != "stderr" for output in outputs(notebook))
    figures = [forms for forms in data(notebook) if PLOTLY in forms]
    assert len(figures) >= 3
    assert all("image/png" in forms for forms in figures)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_notebook_differs_in_its_sizes_alone(name):
    smaller = 0
    for small, committed in zip(code_cells(to_run(name, full=False)), code_cells(read(name)), strict=True):
        for line, before in zip(small.source.splitlines(), committed.source.splitlines(), strict=True):
            assert line == before or any(words in line for words in QUICK[name])
            assert re.sub(r"\b[\d_]+\b", "", line) == re.sub(r"\b[\d_]+\b", "", before)
            smaller += line != before
    assert smaller


@pytest.mark.parametrize("name", NAMES[2:])
def test_runs_top_to_bottom(name, tmp_path, long):
    notebook = run(to_run(name, full=long), tmp_path)
    assert_shows_the_same_forms(notebook, name)
