"""The project's notebooks: read, made smaller, run, and compared with what they are committed with."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from notebooks.make import tidy

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = ("01_code_neurons", "02_value_vs_pre_out", "03_paper_figures")
TOKENS = re.compile(r'(?<=tokens=)[\d_]+|(?<="tokens": )[\d_]+')


def read(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def data(notebook: NotebookNode) -> list[NotebookNode]:
    """What is displayed, as it is in each of its forms."""
    return [output.data for output in outputs(notebook) if "data" in output]


def to_run(name: str, *, full: bool) -> NotebookNode:
    """A notebook as if nobody had run it; unless `full`, every number of tokens in it is a quarter of what it was."""
    notebook, smaller = read(name), 0
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
        if not full:
            cell.source, found = TOKENS.subn(lambda number: str(int(number[0]) // 4), cell.source)
            smaller += found
    assert full or smaller, f"{name}: no number of tokens was found"
    return notebook


def run(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run it from its first cell to its last, in `folder`."""
    NotebookClient(notebook, timeout=1_800, resources={"metadata": {"path": str(folder)}}).execute()
    tidy(notebook)
    return notebook


def assert_shows_the_same_forms(notebook: NotebookNode, name: str) -> None:
    """As many things are displayed as in the committed notebook, in the same forms (pictures may be missing)."""
    committed = data(read(name))
    assert len(data(notebook)) == len(committed)
    for forms, before in zip(data(notebook), committed, strict=True):
        assert set(forms) >= set(before) - {"image/png"}
