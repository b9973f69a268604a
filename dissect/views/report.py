"""The report: one self-contained HTML page about one run or several."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from dissect.errors import DissectError
from dissect.runs import Run
from dissect.storage import write_text
from dissect.views.figure import run_figure


def write_report(runs: list[Run], path: str | Path) -> Path:
    """Write the page; it opens offline, everything it needs is in it.

    Raises:
        DissectError: There is no run, a run has no step yet, or the page cannot be written.
    """
    if not runs:
        raise DissectError("a report needs at least one run")
    for run in runs:
        if not run.history:
            raise DissectError(f"run {run.path} has no finished step yet; give its command again to go on with it")
    figure = run_figure(*runs).to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False})
    environment = Environment(loader=PackageLoader("dissect.views"), autoescape=select_autoescape(default=True))
    page = environment.get_template("report.html").render(
        runs=runs, columns=SUMMARY_COLUMNS, rows=summary_rows(runs), figure=Markup(figure)
    )
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise DissectError(f"cannot write the report to {path}: {error}; choose another --out") from error
    return path


SUMMARY_COLUMNS = (
    "run",
    "largest difference",
    "at step",
    "forget drop there",
    "retain drop there",
    "forget drop at 5% retain drop",
    "forget drop at 20% retain drop",
)


def summary_rows(runs: list[Run]) -> list[tuple[str, ...]]:
    """A row of `SUMMARY_COLUMNS` for each run; drops are relative, of top-1 accuracy."""
    return [_row(run) for run in runs]


def _row(run: Run) -> tuple[str, ...]:
    summary = run.summary()
    return (
        run.label,
        f"{100 * summary.difference:.1f} points",
        f"{summary.step} of {len(run.history) - 1}",
        _percent(summary.forget_drop),
        _percent(summary.retain_drop),
        *(_percent(summary.forget_drop_at[level]) for level in (0.05, 0.20)),
    )


def _percent(part: float | None) -> str:
    return "not reached" if part is None else f"{100 * part:.1f}%"
