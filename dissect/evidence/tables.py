"""Scores of benchmarks as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pandas as pd

from dissect.evidence.harness import Score

COLUMNS = ("step", "units", "pruned", *(field.name for field in dataclasses.fields(Score)))


def scores_table(measured: Iterable[Any]) -> pd.DataFrame:
    """A row for each number of what was `Measured`."""
    rows = [
        {"step": each.step, "units": each.units, "pruned": each.pruned, **dataclasses.asdict(score)}
        for each in measured
        for score in each.scores
    ]
    kinds = {"step": "Int64", "value": float, "stderr": float, "higher_is_better": "boolean"}
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(kinds)
