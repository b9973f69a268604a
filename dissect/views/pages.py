"""The paper's figures of a set of runs, each a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from dissect.base.checks import as_path, check_kind
from dissect.base.errors import DissectError
from dissect.base.storage import with_folder, write_text
from dissect.runs.run import Run, as_runs
from dissect.style.theme import plain, words
from dissect.views.compare import compare
from dissect.views.curves import curves
from dissect.views.perplexity import perplexity


def write_figures(runs: Iterable[Run], folder: str | Path) -> list[Path]:
    """Write the paper's Figures 1 to 3 of `runs` into `folder`, as pages that open offline; gives their paths.

    Figures 1 and 2 are drawn for each model and pair of data sets, Figure 3 for each pair and direction. The folder is
    made where there is none.

    Raises:
        DissectError: There is no run, a run has no step yet, or a page cannot be written.
    """
    runs = as_runs(runs)
    folder = as_path("folder", folder)
    pages = {"figure_1": (curves, _by_model), "figure_2": (perplexity, _by_model), "figure_3": (compare, _by_data)}
    return [
        write_page([draw(group) for group in _groups(runs, key)], folder / f"{name}.html")
        for name, (draw, key) in pages.items()
    ]


def _by_model(run: Run) -> Hashable:
    return run.config.model, frozenset((run.config.forget, run.config.retain))


def _by_data(run: Run) -> Hashable:
    return run.config.forget, run.config.retain


def _groups(runs: Sequence[Run], key: Callable[[Run], Hashable]) -> list[list[Run]]:
    """The runs of each key together, in the order of their first ones."""
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def write_page(figures: Sequence[Figure], path: str | Path) -> Path:
    """Write figures one below the other as a page that opens offline, in a folder made where there is none.

    Returns:
        Its path.

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
