"""What was found inside a run's model, layer by layer, unpruned and pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from dissect.evaluation.documents import DocumentSums
from dissect.evaluation.intervals import Interval, intervals
from dissect.evidence.probes import ProbeScore

MODELS = ("unpruned", "pruned")
LENS, TEXT, NEXT_CLASS = "lens", "text", "next_class"
PROBES = (TEXT, NEXT_CLASS)


@dataclass(frozen=True, eq=False)
class Inside:
    """The logit lens and probes at every layer of a run's model.

    Attributes:
        model: The model's name.
        step: The step whose mask is pruned.
        units: How many units that are.
        lens: Of each of `unpruned` and `pruned`, what every layer predicts of each forget test document.
        probes: Of each of the two, the scores of every layer's probe for `text` and `next_class`; without probes empty.
        record: The options, versions, and the run's checksum.
    """

    model: str
    step: int
    units: int
    lens: Mapping[str, tuple[DocumentSums, ...]] = field(repr=False)
    probes: Mapping[str, Mapping[str, tuple[ProbeScore, ...]]] = field(repr=False)
    record: Mapping[str, Any] = field(repr=False)

    def table(self) -> pd.DataFrame:
        """A row for each of `lens`, `text` and `next_class` (`what`), model and layer.

        `accuracy` is in [0, 1], `loss` in nats; `low` and `high` are the ends of 95% intervals over test documents,
        missing where a side has fewer than 10. `chance` is the accuracy of always answering the most frequent class.
        """
        rows = [self._lens_row(model, layer) for model in MODELS for layer in range(len(self.lens[model]))]
        rows += [
            {"what": what, "model": model, "layer": layer, **_of_probe(score)}
            for what in PROBES
            for model in self.probes
            for layer, score in enumerate(self.probes[model][what])
        ]
        columns = "what model layer accuracy low high chance loss loss_low loss_high n documents".split()
        kinds = dict.fromkeys(("low", "high", "chance", "loss", "loss_low", "loss_high"), float)
        return pd.DataFrame(rows, columns=columns).astype(kinds)

    def _lens_row(self, model: str, layer: int) -> dict[str, Any]:
        found, base = self.lens[model][layer], self.lens["unpruned"][layer]
        metrics, ends = found.metrics(), intervals({"forget": found}, {"forget": base})["forget"] or {}
        return {
            **{"what": LENS, "model": model, "layer": layer, "accuracy": metrics["top1"], "loss": metrics["loss"]},
            **_ends(ends.get("top1"), "low", "high"),
            **_ends(ends.get("loss"), "loss_low", "loss_high"),
            **{"n": metrics["n"], "documents": len(found.sums)},
        }

    def __repr__(self) -> str:
        last = self.table().groupby(["what", "model"], sort=False).tail(1)
        shown = last[["what", "model", "layer", "accuracy", "low", "high", "chance"]]
        return f"Inside({self.model}, step {self.step}, {self.units} units)\n{shown.to_string(index=False)}"


def _of_probe(score: ProbeScore) -> dict[str, Any]:
    found = {"accuracy": score.accuracy, "chance": score.chance, "n": score.n, "documents": score.documents}
    return found | _ends(score.interval, "low", "high")


def _ends(interval: Interval | list[float], low: str, high: str) -> dict[str, float]:
    """The two ends by these names; nothing where there is no interval."""
    return {} if interval is None else {low: interval[0], high: interval[1]}
