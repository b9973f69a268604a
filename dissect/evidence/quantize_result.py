"""What quantizing a pruned model gave: accuracies with intervals, and whether pruned units stayed zero."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from dissect.evaluation.documents import DocumentSums
from dissect.evaluation.intervals import intervals
from dissect.evidence.rows import with_ends

VARIANTS = ("unpruned", "cut", "random")
WHOLE = "as it is"  # weights in the run's own dtype


@dataclass(frozen=True, eq=False)
class Measurement:
    """One model.

    Attributes:
        variant: `unpruned`, `cut` (as the run cut it), or `random` (as many units of each site, drawn at random).
        weights: `as it is`, `8bit` or `4bit`.
        documents: What it predicts of the test documents of each corpus.
        units: How many units are pruned; of the unpruned model, those that `cut` prunes.
        still_zero: How many of them write exactly nothing; None where their site is of experts.
    """

    variant: str
    weights: str
    documents: Mapping[str, DocumentSums] = field(repr=False)
    units: int
    still_zero: int | None


@dataclass(frozen=True, eq=False)
class Quantization:
    """An unpruned model, the pruned one and a random control, in all their bits and in fewer.

    Attributes:
        model: The model's name.
        step: The step whose mask is pruned.
        measurements: Each model, the unpruned one as it is first.
        record: The options, versions, and the checksums of run and model.
    """

    model: str
    step: int
    measurements: tuple[Measurement, ...]
    record: Mapping[str, Any] = field(repr=False)

    def table(self) -> pd.DataFrame:
        """A row for each model and corpus: `top1`, `drop` and `loss` with the ends of their 95% intervals.

        `drop` is the relative drop of top-1 accuracy from the unpruned model as it is, on the same documents. Intervals
        are over documents, missing where there are fewer than 10 of them. `units` and `still_zero` are of the model.
        """
        base = self.measurements[0].documents
        rows = [_row(each, corpus, base) for each in self.measurements for corpus in each.documents]
        return pd.DataFrame(rows).astype({"still_zero": "Int64"})

    def __repr__(self) -> str:
        table = self.table()
        shown = pd.DataFrame([_shown(row) for row in table.to_dict("records")])
        title = f"{self.model}, step {self.step}: top-1 accuracy, drop in percent, loss in nats; 95% intervals"
        return f"{title}\n{shown.to_string(index=False)}"


def _row(each: Measurement, corpus: str, base: Mapping[str, DocumentSums]) -> dict[str, Any]:
    now, before = each.documents[corpus], base[corpus]
    metrics, unpruned = now.metrics(), before.metrics()
    ends = intervals({corpus: now}, {corpus: before})[corpus] or {}
    row: dict[str, Any] = {"variant": each.variant, "weights": each.weights, "corpus": corpus}
    drop = 1 - metrics["top1"] / unpruned["top1"] if unpruned["top1"] else 0.0
    for name, value in (("top1", metrics["top1"]), ("drop", drop), ("loss", metrics["loss"])):
        row |= with_ends(name, value, ends.get(name))
    counted = {"documents": len(now.sums), "predictions": metrics["n"]}
    return row | counted | {"units": each.units, "still_zero": each.still_zero}


def _shown(row: Mapping[Hashable, Any]) -> dict[str, str]:
    drop = [100 * row[name] for name in ("drop", "drop_low", "drop_high")]
    return {
        **{name: row[name] for name in ("variant", "weights", "corpus")},
        "top-1": _in_words(row["top1"], row["top1_low"], row["top1_high"], 3),
        "drop": _in_words(drop[0], drop[1], drop[2], 1),
        "loss": f"{row['loss']:.2f}",
        "pruned units that write 0": "" if pd.isna(row["still_zero"]) else f"{row['still_zero']:,} of {row['units']:,}",
    }


def _in_words(value: float, low: float, high: float, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if pd.isna(low) else f" [{low:.{digits}f}, {high:.{digits}f}]")
