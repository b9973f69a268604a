"""A page of figures that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from dissect.base.checks import as_path, check_kind
from dissect.base.errors import DissectError
from dissect.base.storage import with_folder, write_text
from dissect.style.theme import plain, words


def write_page(figures: Sequence[Figure], path: str | Path) -> Path:
    """Write figures one below the other as a page that opens offline; a missing folder is made.

    Returns:
        The path of the page.

    Raises:
        DissectError: There is no figure, or the page cannot be written.
    """
    path = as_path("path", path)
    check_kind("figures", figures, Sequence, "a list of figures")
    if not figures:
        raise DissectError("a page needs at least one figure: write_page([figure], path)")
    for figure in figures:
        check_kind("a figure", figure, Figure, "a Plotly figure, as the functions of dissect.views give it")
    title = plain(words(figures[0].layout.title.text or "") or path.stem)
    drawn = [
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False}) for figure in figures
    ]
    head = f'<meta charset="utf-8"><title>{title}</title><script>{get_plotlyjs()}</script>'
    write_text(with_folder(path), f"<!doctype html><html><head>{head}</head><body>{''.join(drawn)}</body></html>\n")
    return path
