"""The report: one self-contained HTML page about one run or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dissect.cards.heads import HeadCard
from dissect.cards.neurons import NeuronCard
from dissect.checks import as_path, check_kind
from dissect.errors import DissectError
from dissect.neuron_table import neurons, units_of
from dissect.runs import Run
from dissect.storage import write_text
from dissect.views.card import anchor, card_body, card_style, environment
from dissect.views.embedded import embedded
from dissect.views.figure import dashboard
from dissect.views.overlay import check_runs, lines_of
from dissect.views.theme import get_theme

TOP = 50  # rows of the neuron table
NEURON_COLUMNS = {
    "rank": "rank",
    "site": "site",
    "layer": "layer",
    "head": "head",
    "unit": "unit",
    "forget": "forget importance",
    "retain": "retain importance",
    "score": "score",
    "step": "pruned at step",
}


def write_report(
    runs: Sequence[Run], path: str | Path, cards: Sequence[NeuronCard | HeadCard] = (), *, theme: str = "light"
) -> Path:
    """Write the page; it opens offline, everything it needs is in it.

    Args:
        runs: The first is the one shown layer by layer and, if it kept statistics, neuron by neuron.
        path: The page.
        cards: Cards to show, as `neuron_cards` and `head_cards` make them.
        theme: `light` or `dark`.

    Raises:
        DissectError: There is no run, a run has no step yet, or the page cannot be written.
    """
    get_theme(theme)
    path = as_path("path", path)
    check_runs(runs)
    check_kind("cards", cards, Sequence, "a list of cards, as neuron_cards and head_cards make them")
    for card in cards:
        check_kind("a card", card, (NeuronCard, HeadCard), "one that neuron_cards or head_cards made")
    rows = neuron_rows(runs, cards)
    columns = {key: name for key, name in NEURON_COLUMNS.items() if any(row[key] is not None for row in rows)}
    template = environment().get_template("report.html")
    page = template.render(
        runs=runs,
        names=[Markup(line.name) for line in lines_of(runs)],  # escaped already, as Plotly wants them
        columns=SUMMARY_COLUMNS,
        summary=summary_rows(runs),
        figure=embedded(dashboard(*runs, theme=theme), "figure"),
        neurons=rows,
        neuron_columns=columns,
        cards=[Markup(card_body(card)) for card in cards],
        card_style=Markup(card_style()),
        theme=get_theme(theme),
        scheme=theme,
    )
    return _write(path, page)


def _write(path: Path, page: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise DissectError(f"cannot write the report to {path}: {error}; choose another --out") from error
    return path


def neuron_rows(runs: Sequence[Run], cards: Sequence[NeuronCard | HeadCard]) -> list[dict[str, Any]]:
    """The units of the highest scores of the first run that has statistics, `TOP` in all; none where none has.

    Each row has the columns of `neurons`, missing values as None, and `card`: the id of the unit's card, or None.
    """
    run = next((run for run in runs if run.has_stats), None)
    if run is None:
        return []
    shown = {card.unit for card in cards}
    table = neurons(run.scores(), run).head(TOP)
    plain = table.astype(object)
    rows: list[dict[str, Any]] = plain.where(plain.notna(), None).to_dict("records")
    for row, unit in zip(rows, units_of(table), strict=True):
        row["card"] = anchor(unit) if unit in shown else None
    return rows


SUMMARY_COLUMNS = (
    "run",
    "largest difference",
    "at step",
    "forget drop there",
    "retain drop there",
    "forget drop at 5% retain drop",
    "forget drop at 20% retain drop",
)


def summary_rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
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
