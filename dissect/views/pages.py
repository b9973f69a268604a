"""The paper's figures of a set of runs, each a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plotly.graph_objects import Figure

from dissect.runs import Run
from dissect.storage import write_text
from dissect.views.comparison import compare
from dissect.views.curve import curves
from dissect.views.perplexities import perplexity

FIGURES = {"figure_1": curves, "figure_2": perplexity, "figure_3": compare}


def write_figures(runs: Sequence[Run], folder: str | Path) -> list[Path]:
    """Write the paper's Figures 1 to 3 of `runs` into `folder`, as pages that open offline; gives their paths."""
    return [_page(draw(runs), Path(folder) / f"{name}.html") for name, draw in FIGURES.items()]


def _page(figure: Figure, path: Path) -> Path:
    write_text(path, figure.to_html(include_plotlyjs=True, config={"displaylogo": False}))
    return path
