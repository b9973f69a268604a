"""What each cut of an atlas costs every corpus, measured on its test windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dissect.ablation.by_hooks import ablated
from dissect.data.windows import Windows
from dissect.evaluation.documents import DocumentSums
from dissect.evaluation.evaluate import evaluate_documents
from dissect.evaluation.intervals import intervals
from dissect.runs.summary import relative_drop
from dissect.scoring.masks import Mask


@dataclass(frozen=True)
class Cost:
    """What a cut costs a corpus.

    Attributes:
        cut: The corpus whose units are cut, or `random`.
        corpus: The corpus that is measured.
        units: How many units are cut.
        predictions: How many predictions are measured.
        unpruned: The unpruned model's top-1 accuracy.
        top1: The cut model's.
        drop: The relative drop of top-1 accuracy, 1 - cut / unpruned.
        low, high: The ends of its 95% interval over documents, None for too few documents.
        loss_rise: The mean loss less the unpruned model's, in nats.
    """

    cut: str
    corpus: str
    units: int
    predictions: int
    unpruned: float
    top1: float
    drop: float
    low: float | None
    high: float | None
    loss_rise: float


def measure_costs(model: Any, tests: Mapping[str, Windows], cuts: Mapping[str, Mask], **how: Any) -> Iterator[Cost]:
    """The costs of each cut, corpus by corpus; `how` is as `evaluate_documents` takes it."""

    def measured() -> dict[str, DocumentSums]:
        return {name: evaluate_documents(model, windows, **how) for name, windows in tests.items()}

    base = measured()
    for cut, mask in cuts.items():
        with ablated(model, mask):
            now = measured()
        yield from (_cost(cut, name, len(mask), now[name], base[name]) for name in tests)


def _cost(cut: str, corpus: str, units: int, now: DocumentSums, base: DocumentSums) -> Cost:
    pruned, whole = now.metrics(), base.metrics()
    ends = intervals({corpus: now}, {corpus: base})[corpus] or {"drop": (None, None)}
    low, high = ends["drop"]
    return Cost(
        cut=cut,
        corpus=corpus,
        units=units,
        predictions=int(whole["n"]),
        unpruned=whole["top1"],
        top1=pruned["top1"],
        drop=relative_drop(pruned["top1"], whole["top1"]),
        low=low,
        high=high,
        loss_rise=pruned["loss"] - whole["loss"],
    )
