"""The paper's own experiments as grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from dissect.base.checks import check_kind, check_whole
from dissect.base.errors import look_up
from dissect.base.options import Selector
from dissect.experiments.grid import Grid

Experiment = Literal["fig1", "fig2", "fig3", "table2", "claims"]

PAPER_MODELS = (
    "opt-125m",
    "opt-1.3b",
    "opt-6.7b",
    "galactica-125m",
    "galactica-1.3b",
    "galactica-6.7b",
    "pythia-160m",
    "pythia-1.4b",
    "pythia-6.9b",
    "roberta-base",
    "roberta-large",
)

# (forget, retain), each taken in both directions. The Pile is without GitHub, since code is the other side.
PAPER_PAIRS = (("code", "pile"), ("python", "code"))
OFFLINE_PAIRS = (("python-stdlib", "wiki-en"), ("torch-headers", "python-stdlib"))

BOTH_SELECTORS: tuple[Selector, ...] = ("score", "random")


def paper_grids(
    what: Experiment,
    models: tuple[str, ...] = PAPER_MODELS,
    *,
    tokens: int = 100_000,
    steps: int = 50,
    first_position: bool = False,
    context: int = 1_000,
    offline: bool = False,
) -> list[Grid]:
    """The grids behind a figure, a table, or all of the paper's claims; by default at its settings.

    Those are 50 steps of 2%, iterative, 100,000 predictions, windows of 1,000 tokens, both pairs of data sets in
    both directions. `offline` takes pairs that need no hub. The authors' own code also counts `first_position`.

    Raises:
        DissectError: No such experiment, or a value of another type.
    """
    of_figure = look_up("experiment", what, _GRIDS)
    check_whole("tokens", tokens, 1)  # here, since a part of them is taken
    check_kind("offline", offline, bool, "True or False")
    forget, retain = zip(*(OFFLINE_PAIRS if offline else PAPER_PAIRS), strict=True)
    everything = Grid(
        models,
        forget,
        retain,
        both_directions=True,
        tokens=tokens,
        steps=steps,
        first_position=first_position,
        context=context,
    )
    everything.check()
    return of_figure(everything)


def _figure_1(everything: Grid) -> list[Grid]:
    return [replace(everything, sites=("mlp", "pre_out"), selectors=BOTH_SELECTORS)]


def _figure_3(everything: Grid) -> list[Grid]:
    """Every importance at every site; `freq` where an activation function maps negatives to zero."""
    sites, importances = ("mlp", "value", "pre_out", "head"), ("abs", "rms", "std", "sqrt")
    return [
        replace(everything, sites=sites, importances=importances, selectors=BOTH_SELECTORS),
        replace(everything, sites=("mlp",), importances=("freq",), selectors=("score",)),
    ]


def _table_2(everything: Grid) -> list[Grid]:
    return [replace(everything, sites=("mlp", "pre_out"), selectors=("score",))]


def _claims(everything: Grid) -> list[Grid]:
    """Every run that one of `dissect.experiments.claims.CLAIMS` compares: Figure 1's, and others of the first pair."""
    first = replace(
        everything,
        forget=everything.forget[:1],
        retain=everything.retain[:1],
        both_directions=False,
        selectors=("score",),
    )
    total = everything.tokens
    return [
        *_figure_1(everything),
        replace(first, sites=("mlp", "value", "pre_out", "head"), selectors=BOTH_SELECTORS),
        replace(first, sites=("mlp",), importances=("freq", "rms", "std", "sqrt")),
        replace(first, sites=("pre_out",), importances=("rms", "std", "sqrt")),
        replace(first, sites=("mlp", "pre_out"), iterative=False),
        replace(first, sites=("value", "pre_out"), svd=True),
        *(replace(first, sites=("mlp",), tokens=max(1, total // part), eval_tokens=total) for part in FEWER),
    ]


FEWER = (5, 20)  # statistics from a part of the predictions, to see what more of them are worth

_GRIDS: dict[str, Callable[[Grid], list[Grid]]] = {
    "fig1": _figure_1,
    "fig2": _figure_1,  # two views of the same runs
    "fig3": _figure_3,
    "table2": _table_2,
    "claims": _claims,
}
