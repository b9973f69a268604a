"""The preset `methods` of `dissect compare`: the ways to choose units and to cut them, all at the same budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from typing_extensions import Unpack

from dissect.base.errors import DissectError
from dissect.experiments.grid import Grid
from dissect.runs.config import PruneConfig, PruneOptions

Preset = Literal["methods"]


def _method(**options: Unpack[PruneOptions]) -> PruneOptions:
    return options


METHODS: tuple[PruneOptions, ...] = (
    _method(importance="abs"),
    _method(importance="rms"),
    _method(importance="std"),
    _method(importance="abs", first_position=True),
    _method(importance="mean", combine="distance"),
    _method(importance="wanda", combine="set_difference"),
    _method(importance="attribution", combine="difference"),
    _method(importance="attribution_abs"),
    _method(importance="fisher"),
    _method(importance="fisher_sample", combine="threshold"),
    _method(importance="relp", combine="difference"),
    _method(importance="abs", value="mean"),
    _method(importance="abs", compensate="retain"),
    _method(selector="learned"),
    _method(selector="random"),
)


def methods_grids(grid: Grid) -> list[Grid]:
    """A grid for each of `METHODS`, with the models, data sets, sites, seeds and all other options of `grid`.

    Raises:
        DissectError: `grid` varies the importance or the selector itself.
    """
    if set(grid.importances) - {PruneConfig.importance} or set(grid.selectors) - {"score", "random"}:
        raise DissectError("the preset methods has importances and selectors of its own; give none beside it")
    plain = replace(grid, importances=(), selectors=())
    return [replace(plain, base=replace(grid.base, **method)) for method in METHODS]
