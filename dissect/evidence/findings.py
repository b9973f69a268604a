"""What each way to get back what was cut says, as rows of a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dissect.evidence.curves import Curve
from dissect.evidence.in_context_result import InContext
from dissect.evidence.inside_result import LENS, PROBES, Inside
from dissect.evidence.quantize_result import WHOLE, Quantization
from dissect.evidence.relearn_config import PRUNED, RANDOM
from dissect.evidence.relearning import Relearning
from dissect.evidence.rows import ends_of
from dissect.evidence.verdict import Finding


def of_relearning(result: Relearning) -> Iterator[Finding]:
    """For each way to train, and for cuts that are held and free, the learning rate that ends best."""
    pruned = [curve for curve in result.curves if curve.arm.model == PRUNED and curve.same_as is None]
    for way, frozen in dict.fromkeys((curve.arm.way, curve.arm.frozen) for curve in pruned):
        curves = [curve for curve in pruned if (curve.arm.way, curve.arm.frozen) == (way, frozen)]
        yield _of_training(result, max(curves, key=lambda curve: curve.values("forget")[-1]))


def _of_training(result: Relearning, best: Curve) -> Finding:
    arm, last = best.arm, best.points[-1]
    control = result.control_of(best, RANDOM)
    beside = "" if control is None else f"; as many units at random {_back(result, control)}"
    ends = last.intervals["forget"] or (None, None)
    held = "held at zero" if arm.frozen else "free"
    return Finding(
        way=f"training ({arm.way}, cut {held})",
        unpruned=result.original["forget"],
        pruned=best.values("forget")[0],
        after=last.metrics["forget"]["top1"],
        low=ends[0],
        high=ends[1],
        control=f"{_back(result, best)}{beside}",
        cost=f"{last.step} steps of {result.config.windows} windows, rate {arm.rate:g}",
    )


def _back(result: Relearning, curve: Curve) -> str:
    steps = result.steps_until_back(curve)
    return "not back" if math.isinf(steps) else f"back after {steps:.1f} steps"


def of_quantization(result: Quantization) -> Iterator[Finding]:
    table = result.table()
    rows = {(row["variant"], row["weights"]): row for row in table.loc[table["corpus"].eq("forget")].to_dict("records")}
    for (variant, weights), row in rows.items():
        if variant == "cut" and weights != WHOLE:
            low, high = ends_of(row, "top1_low", "top1_high")
            whole, random = rows["unpruned", weights]["top1"], rows["random", weights]["top1"]
            yield Finding(
                way=f"{weights} weights",
                unpruned=rows["unpruned", WHOLE]["top1"],
                pruned=rows["cut", WHOLE]["top1"],
                after=row["top1"],
                low=low,
                high=high,
                control=f"unpruned {100 * whole:.1f}%, at random {100 * random:.1f}%",
                cost="none",
            )


def of_context(result: InContext) -> Iterator[Finding]:
    table = result.table().set_index(["model", "examples of", "k"])
    for k in dict.fromkeys(k for _, _, k in result.documents if k):
        row, beside = table.loc[("pruned", "forget", k)], table.loc[("pruned", "retain", k)]
        low, high = ends_of(row, "top1_low", "top1_high")
        yield Finding(
            way=f"{k} example{'s' * (k > 1)} in the prompt",
            unpruned=float(table.loc[("unpruned", "forget", 0), "top1"]),
            pruned=float(table.loc[("pruned", "forget", 0), "top1"]),
            after=float(row["top1"]),
            low=low,
            high=high,
            control=f"examples of retain text {100 * beside['top1']:.1f}%",
            cost=f"{k * result.example_tokens} tokens of prompt",
        )


def of_lens(result: Inside) -> Finding:
    """The layer that predicts most, of the pruned model; the last one is the model itself."""
    table = result.table()
    lens = table.loc[table["what"].eq(LENS)]
    pruned, unpruned = (
        lens.loc[lens["model"].eq(name)].set_index("layer").sort_index() for name in ("pruned", "unpruned")
    )
    layer = int(pruned["accuracy"].to_numpy().argmax())
    best = pruned.iloc[layer]
    low, high = ends_of(best, "low", "high")
    return Finding(
        way=f"logit lens, layer {layer}, the best of {len(pruned)}",
        unpruned=float(unpruned["accuracy"].iloc[-1]),
        pruned=float(pruned["accuracy"].iloc[-1]),
        after=float(best["accuracy"]),
        low=low,
        high=high,
        control=f"unpruned {100 * unpruned['accuracy'].iloc[layer]:.1f}% at that layer",
        cost="none",
    )


def of_probes(result: Inside) -> Iterator[str]:
    """What the best layer's probe knows of each model."""
    table = result.table()
    said = {"text": "forget text from retain text", "next_class": "the class of the next token"}
    for what in PROBES:
        rows = table.loc[table["what"].eq(what)]
        best = rows.groupby("model")["accuracy"].max()
        if len(best):
            yield (
                f"a linear probe tells {said[what]} at {100 * best['pruned']:.1f}% in the best layer of the pruned "
                f"model, {100 * best['unpruned']:.1f}% of the unpruned one; chance {100 * rows['chance'].max():.1f}%"
            )
