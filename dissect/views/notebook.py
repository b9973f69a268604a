"""Figures that are shown in a notebook, and in HTML pages made from the notebook."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import plotly.io
from markupsafe import Markup
from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from dissect.style.html import environment
from dissect.style.theme import words
from dissect.views.embedded import drawing, packed_script

JUPYTER = ("plotly_mimetype", "jupyterlab", "vscode", "nteract")  # renderers of Plotly that write no HTML
NOTE = """
<p>Interactive figure{{ title }}. If it stays empty, this page runs no scripts, or the notebook's first figure is
missing, which contains Plotly for all figures: run the notebook from its first cell.</p>
"""


class NotebookFigure(go.Figure):
    """Plotly's figure, which a notebook also stores as HTML, for pages made by `jupyter nbconvert --to html`.

    Only the first figure of a kernel contains Plotly itself, compressed (2 MB).
    """

    def _ipython_display_(self) -> None:
        if plotly.io.renderers.default not in JUPYTER:
            super()._ipython_display_()
            return
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, *args: Any, **options: Any) -> dict[str, Any]:
        shown = super()._repr_mimebundle_(*args, **options)
        return shown | {"text/html": as_html(self)} if plotly.io.renderers.default in JUPYTER else shown


def as_html(figure: go.Figure) -> str:
    """HTML that draws a figure as soon as Plotly is loaded; it contains Plotly if no earlier figure does."""
    name = f"figure-{uuid4().hex}"
    draw = drawing(figure, name)
    wait = f"(function draw() {{ window.Plotly ? (() => {{ {draw} }})() : setTimeout(draw, 200); }})();"
    title = words(figure.layout.title.text or "")
    note = environment().from_string(NOTE).render(title=f": {title}" if title else "")
    return packed_script(f"{get_plotlyjs()}\n{draw}" if brings_plotly() else wait, figure, name, Markup(note))


_bringer: tuple[Any, Any] | None = None


def brings_plotly() -> bool:
    """True for the first figure of a kernel, and for that cell again when it is rerun, which replaces its output."""
    global _bringer
    cell, execution = _running()
    if _bringer is not None and (cell is None or _bringer[0] != cell or _bringer[1] == execution):
        return False
    _bringer = cell, execution
    return True


def _running() -> tuple[Any, Any]:
    """The id of the running cell, if the notebook gives one, and the id of this execution."""
    from IPython import get_ipython

    parent = getattr(get_ipython(), "get_parent", dict)()
    return parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id")
