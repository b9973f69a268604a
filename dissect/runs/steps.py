"""One step of the procedure: what it prunes, what is lost, and its line on disk."""

from __future__ import annotations

import functools
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from dissect.ablation.by_hooks import ablated
from dissect.backend.forward import default_batch_size
from dissect.base.progress import say
from dissect.base.ranks import from_main, is_main
from dissect.data.windows import Windows
from dissect.evaluation.documents import DocumentSums
from dissect.evaluation.evaluate import Reference, evaluate_documents
from dissect.evaluation.intervals import intervals
from dissect.runs.config import PruneConfig
from dissect.runs.run import SIDES, Run
from dissect.scoring.at_random import layer_random_units, random_units
from dissect.scoring.collect import collect
from dissect.scoring.importance import get_importance
from dissect.scoring.masks import Mask
from dissect.scoring.scores import Scores, score
from dissect.scoring.stats import Stats


@dataclass(frozen=True, eq=False)
class Work:
    """What every step of a run in progress needs."""

    config: PruneConfig
    model: Any
    windows: dict[str, tuple[Windows, Windows]]
    fractions: dict[str, float]
    run: Run
    progress: bool
    matched: Run | None = None
    reference: Reference | None = None

    def ablated(self, mask: Mask) -> AbstractContextManager[None]:
        """The model with `mask` pruned as the configuration says."""
        if self.config.value == "zero" or not mask:  # the means themselves come from the whole model
            return ablated(self.model, mask)
        return ablated(self.model, mask, value="mean", stats=base_stats(self.run, "retain"))

    def batch_size(self, windows: Windows) -> int:
        """Windows in a forward pass, also where memory is short: a run that goes on later has the same."""
        return self.config.batch_size or default_batch_size(self.model, windows.tokens.shape[1])


def base_stats(run: Run, side: str) -> Stats:
    """The base model's statistics, on every rank, read by the main one."""
    return from_main(lambda: run.stats(side), Stats.to_bytes, Stats.from_bytes)


def take_step(work: Work, step: int) -> None:
    """Choose units (none at step 0), prune them with those before, evaluate both sides, and commit it all."""
    start = time.perf_counter()
    if step == 0:
        chosen = Mask.none(work.model, work.fractions)
        _save_base_stats(work)
    else:
        chosen = _as_main_chose(_choose(work, step))
    mask = chosen if step == 0 else work.run.mask() | chosen
    with work.ablated(mask):
        found = {side: _evaluate(work, side) for side in SIDES}
    if step == 0:
        for side, sums in found.items():
            work.run.save_documents(side, sums)
    line = {
        "step": step,
        "pruned": len(mask) / mask.total,
        "units": len(mask),
        "per_layer": mask.per_layer(),
        "seconds": round(time.perf_counter() - start, 3),
        "metrics": {side: sums.metrics() for side, sums in found.items()},
    }
    if is_main():
        line["intervals"] = intervals(found, {side: work.run.documents(side) for side in SIDES})
    if len(mask.sites) > 1:
        line["sites"] = {site: mask.per_layer(site) for site in mask.sites}
    work.run.commit(line, chosen)
    if work.progress:
        say(describe_step(work.run, step))


def _evaluate(work: Work, side: str) -> DocumentSums:
    windows = work.windows[side][1]
    return evaluate_documents(
        work.model,
        windows,
        reference=work.reference if side == "retain" else None,
        seed=work.config.seed,
        batch_size=work.batch_size(windows),
        progress=work.progress,
    )


def describe_step(run: Run, step: int) -> str:
    """A line about a step: how much is pruned, top-1 accuracy and its relative drop on both sides, seconds."""
    line = run.history[step]
    sides = (
        f"{side} top-1 {line['metrics'][side]['top1']:.3f} (drop {100 * run.drops(side)[step]:5.1f}%)" for side in SIDES
    )
    return (
        f"step {step:>2}/{run.config.steps}  {100 * line['pruned']:5.1f}% of {'+'.join(run.pruned_at)} pruned  "
        f"{'  '.join(sides)}  {line['seconds']:.1f} s"
    )


def _choose(work: Work, step: int) -> Mask:
    """The units that `step` adds, of each site by itself."""
    pruned = work.run.mask()
    counts = {site: _count(work, site, step) - _count(work, site, step - 1) for site in work.fractions}
    if work.config.selector == "score":
        scores = _scores(work, step)
        picks = [scores[site].top(count=count, exclude=pruned) for site, count in counts.items()]
    else:
        picks = [
            _at_random(work, site, count, pruned, (work.config.seed, step, index))
            for index, (site, count) in enumerate(counts.items())
        ]
    return functools.reduce(Mask.__or__, picks)


def _as_main_chose(mask: Mask) -> Mask:
    """The main rank's mask: all ranks rank the same sums, and one of them has the last word."""
    return from_main(lambda: mask, Mask.to_bytes, Mask.from_bytes)


def _at_random(work: Work, site: str, count: int, pruned: Mask, seed: tuple[int, ...]) -> Mask:
    if work.matched is None:
        return random_units(pruned, site, count, seed)
    step = len(work.run.history)
    wanted = work.matched.mask(step) - work.matched.mask(step - 1)
    return layer_random_units(pruned, site, wanted.per_layer(site), seed)


def _scores(work: Work, step: int) -> Scores:
    """The scores that `step` ranks by: the base model's, or from step 2 on those of the pruned model."""
    once = step == 1 or not work.config.iterative
    moments = get_importance(work.config.importance).moments
    forget, retain = (base_stats(work.run, side) if once else _collect(work, side, moments) for side in SIDES)
    return score(
        forget=forget,
        retain=retain,
        importance=work.config.importance,
        eps=work.config.eps,
        sites=list(work.fractions),
        head=work.config.head,
        force=work.config.force,
    )


def _count(work: Work, site: str, step: int) -> int:
    """Units pruned after `step`, rounded from the start, so that 50 steps of 2% are all units."""
    return min(
        round(step * work.fractions[site] * work.run.pruned_at[site].numel()),
        work.run.pruned_at[site].numel(),
    )


def _save_base_stats(work: Work) -> None:
    """All moments of the base model, where something will be scored by them; of retain, where means are needed."""
    if work.config.selector == "score":
        work.run.save_stats("forget", _collect(work, "forget", None))
    if work.config.selector == "score" or work.config.value == "mean":
        work.run.save_stats("retain", _collect(work, "retain", None))


def _collect(work: Work, side: str, moments: tuple[str, ...] | None) -> Stats:
    windows = work.windows[side][0]
    with work.ablated(work.run.mask()):
        return collect(
            work.model,
            windows,
            sites=list(work.fractions),
            moments=moments,
            first_position=work.config.first_position,
            batch_size=work.batch_size(windows),
            progress=work.progress,
        )
