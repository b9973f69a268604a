"""Is it gone? Every way to get it back that `dissect` knows, under one budget."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass

from dissect.base.checks import check_kind, check_seed
from dissect.base.errors import look_up
from dissect.data.splits import SIDES
from dissect.evidence.curves import Curve
from dissect.evidence.in_context import InContext, TooFewExamples, in_context, train_texts
from dissect.evidence.inside import inside
from dissect.evidence.inside_result import LENS, PROBES, Inside
from dissect.evidence.quantize import quantize
from dissect.evidence.quantize_result import WHOLE, Quantization
from dissect.evidence.relearn import relearn
from dissect.evidence.relearn_config import PRUNED, RANDOM
from dissect.evidence.relearning import Relearning
from dissect.evidence.verdict import Finding, Verdict
from dissect.runs.again import check_named, check_pruned
from dissect.runs.run import Run


@dataclass(frozen=True)
class Budget:
    """What an attack may take.

    Attributes:
        steps: Of relearning, each training.
        learning_rates: Of relearning.
        ways: Of relearning.
        bits: Of quantization.
        examples: In the prompt.
        tokens: Predictions that examples, and layers, are measured on.
    """

    steps: int
    learning_rates: tuple[float, ...]
    ways: tuple[str, ...]
    bits: tuple[int, ...]
    examples: tuple[int, ...]
    tokens: int


BUDGETS = {
    "quick": Budget(5, (1e-4,), ("full",), (4,), (0, 4), 1_000),
    "standard": Budget(20, (1e-4, 3e-4), ("full",), (8, 4), (0, 1, 4, 16), 2_000),
    "thorough": Budget(100, (1e-4, 3e-4, 1e-3), ("full", "lora"), (8, 4), (0, 1, 4, 16), 8_000),
}


@dataclass(frozen=True, eq=False)
class Attack:
    """What an attack found.

    Attributes:
        verdict: The table.
        relearning: The trainings.
        quantization: Fewer bits; None where bitsandbytes is not installed.
        in_context: Examples in the prompt; None where there are too few documents to show.
        inside: The logit lens and, where scikit-learn is installed, probes.
    """

    verdict: Verdict
    relearning: Relearning
    quantization: Quantization | None
    in_context: InContext | None
    inside: Inside

    def __repr__(self) -> str:
        return str(self.verdict)


def attack(
    run: Run, *, budget: str = "standard", step: int | None = None, seed: int = 0, progress: bool = True
) -> Attack:
    """Try to get back what a run cut: by relearning, in fewer bits, by examples in the prompt, and inside.

    Inside is the logit lens: what the layers before the last predict already. Linear probes are told beside it.
    Relearning is kept beside the run, in a folder named after it, and quantization in the run folder: the same call
    resumes with what is not there yet. The verdict is kept in the run folder's `attack/`, where a report finds it.

    Args:
        run: A run whose model and text are loaded by their names.
        budget: quick (5 steps of relearning), standard (20 steps at two rates) or thorough (100 steps at three rates,
            adapters too); see `BUDGETS`.
        step: The step whose mask is pruned; by default the last.
        seed: Of all that is drawn.
        progress: Show progress bars.

    Raises:
        DissectError: As `relearn`, `quantize` and `in_context`; or there is no such budget.
    """
    check_pruned(run)
    check_seed(seed)
    check_kind("budget", budget, str, "quick, standard or thorough")
    allowed = look_up("budget", budget, BUDGETS)
    check_named(run)
    step = len(run.history) - 1 if step is None else step
    shared = {"step": step, "seed": seed, "progress": progress}
    out = run.path.with_name(f"{run.path.name}-attack-step-{step}-{budget}-seed-{seed}")
    left_out: list[str] = []
    examples = _examples(run, allowed, left_out)
    shown = None
    try:
        shown = in_context(run, examples=examples, tokens=allowed.tokens, **shared) if any(examples) else None
    except TooFewExamples as error:  # chats, which are not cut to fit
        left_out.append(f"examples in the prompt: {error}")
    has_probes = importlib.util.find_spec("sklearn") is not None
    looked = inside(run, tokens=allowed.tokens, probe_tokens=allowed.tokens * has_probes, **shared)
    if not has_probes:
        left_out.append("linear probes, which need: pip install 'dissect[evidence]'")
    quantized = None
    if importlib.util.find_spec("bitsandbytes"):
        quantized = quantize(run, bits=allowed.bits, **shared)
    else:
        left_out.append("fewer bits, which need: pip install 'dissect[quantized]'")
    trained = relearn(
        run,
        out=out,
        steps=allowed.steps,
        learning_rates=allowed.learning_rates,
        ways=_ways(allowed, left_out),
        **shared,
    )
    found = [
        *_of_relearning(trained),
        *([] if quantized is None else _of_quantization(quantized)),
        *([] if shown is None else _of_context(shown)),
        _of_lens(looked),
    ]
    verdict = Verdict(
        run.record["sha256"], run.label, step, budget, tuple(found), tuple(_of_probes(looked)), tuple(left_out)
    )
    verdict.save(run.path)
    return Attack(verdict, trained, quantized, shown, looked)


def _examples(run: Run, allowed: Budget, left_out: list[str]) -> tuple[int, ...]:
    """The numbers of examples for which both sides have train documents."""
    documents = min(len(train_texts(run, side, max(allowed.examples))) for side in SIDES)
    left_out += [
        f"{k} examples in the prompt: a side has {documents} train documents" for k in allowed.examples if k > documents
    ]
    return tuple(k for k in allowed.examples if k <= documents)


def _ways(allowed: Budget, left_out: list[str]) -> tuple[str, ...]:
    if "lora" in allowed.ways and not importlib.util.find_spec("peft"):
        left_out.append("adapters, which need: pip install 'dissect[peft]'")
        return tuple(way for way in allowed.ways if way != "lora")
    return allowed.ways


def _of_relearning(result: Relearning) -> Iterator[Finding]:
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


def _of_quantization(result: Quantization) -> Iterator[Finding]:
    table = result.table()
    rows = {(row["variant"], row["weights"]): row for row in table.loc[table["corpus"].eq("forget")].to_dict("records")}
    for (variant, weights), row in rows.items():
        if variant == "cut" and weights != WHOLE:
            low, high = (None if math.isnan(row[name]) else row[name] for name in ("top1_low", "top1_high"))
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


def _of_context(result: InContext) -> Iterator[Finding]:
    table = result.table().set_index(["model", "examples of", "k"])
    for k in dict.fromkeys(k for _, _, k in result.documents if k):
        row, beside = table.loc[("pruned", "forget", k)], table.loc[("pruned", "retain", k)]
        low, high = (None if math.isnan(row[name]) else float(row[name]) for name in ("top1_low", "top1_high"))
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


def _of_lens(result: Inside) -> Finding:
    """The layer that predicts most, of the pruned model; the last one is the model itself."""
    table = result.table()
    lens = table.loc[table["what"].eq(LENS)]
    pruned, unpruned = (
        lens.loc[lens["model"].eq(name)].set_index("layer").sort_index() for name in ("pruned", "unpruned")
    )
    layer = int(pruned["accuracy"].to_numpy().argmax())
    best = pruned.iloc[layer]
    low, high = (None if math.isnan(best[name]) else float(best[name]) for name in ("low", "high"))
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


def _of_probes(result: Inside) -> Iterator[str]:
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
