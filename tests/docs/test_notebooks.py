"""The notebooks run top to bottom, and the outputs they are committed with are whole and show without Jupyter."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from notebooks.make import tidy

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = ["01_code_neurons", "02_value_vs_pre_out", "03_paper_figures"]
PLOTLY = "application/vnd.plotly.v1+json"


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def data(notebook):
    """What is displayed, as it is in each of its forms."""
    return [output.data for output in outputs(notebook) if "data" in output]


def test_there_are_no_others():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


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


@pytest.mark.parametrize("name", [NAMES[0], NAMES[2]])  # test_jupyter.py runs the second, in JupyterLab
def test_runs_top_to_bottom(name, tmp_path):
    notebook, before = read(name), read(name)
    NotebookClient(notebook, timeout=1_800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    tidy(notebook)
    assert len(data(notebook)) == len(data(before))
    for forms, committed in zip(data(notebook), data(before), strict=True):
        assert set(forms) >= set(committed) - {"image/png"}
