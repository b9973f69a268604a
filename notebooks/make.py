"""Run every notebook from its first cell to its last and keep what it shows: `make notebooks`.

Figures are kept twice, as themselves and as pictures for where a notebook is only read. Progress bars are not kept.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype+png"
    shutil.rmtree(HERE / "runs", ignore_errors=True)  # what is in it would not be run again
    for path in sorted(HERE.glob("*.ipynb")):
        print(path.name, flush=True)
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=3_600, resources={"metadata": {"path": str(HERE)}}).execute()
        tidy(notebook)
        nbformat.write(notebook, path)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Take out progress bars, the state of widgets (that need a kernel anyway) and when each cell ran."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined([output for output in cell.outputs if not is_progress(output)])


def is_progress(output: nbformat.NotebookNode) -> bool:
    forms = output.get("data", {})
    return WIDGET in forms and "%|" in forms.get("text/plain", "")


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """One output for what was printed in a row."""
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        if kept and output.output_type == kept[-1].output_type == "stream" and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


if __name__ == "__main__":
    main()
