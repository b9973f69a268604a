"""The procedure: score units, prune the highest, measure what is lost, again and again; the run on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from dissect.ablation import ablated
from dissect.collection import collect
from dissect.config import PruneConfig, Selector, default_out, parse_sites
from dissect.corpora import find_source
from dissect.errors import DissectError
from dissect.evaluation import evaluate
from dissect.fingerprint import model_fingerprint, versions
from dissect.importance import get_importance
from dissect.masks import Mask
from dissect.models import load_model
from dissect.runs import SIDES, Run, config_record, open_run
from dissect.scores import check_importance, count_of, score
from dissect.sites import get_site
from dissect.stats import Stats
from dissect.windows import Windows, load_windows

Corpus = str | tuple[Windows, Windows]
WINDOWS = "windows:"  # how a configuration names data that was handed over as Windows


def prune(
    model: Any,
    *,
    forget: Corpus,
    retain: Corpus,
    site: str | Mapping[str, float] = "mlp",
    importance: str = "abs",
    eps: float | None = None,
    fraction: float = 0.02,
    steps: int = 50,
    iterative: bool = True,
    selector: Selector = "score",
    tokens: int = 100_000,
    context: int = 512,
    seed: int = 0,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Prune a model step by step, and measure accuracy and loss on both data sets at every step.

    The base model is evaluated first (step 0). Statistics come from each corpus's train documents, evaluation from
    its test documents. Every step is on disk when it is done; the same call goes on where the last one stopped and
    ends with the same files. The model is left as it was: the run's masks prune it again (`run.mask(step)`).

    Args:
        model: A name that `load_model` knows, or a model that is loaded already.
        forget: The corpus whose units are to go: a name that `load_windows` knows, or `(train, test)` windows.
        retain: The corpus whose units are to stay, likewise.
        site: `mlp`, `value`, `pre_out` or `head`; or several with a fraction each, `{"mlp": 0.02, "pre_out": 0.01}`,
            each ranked by itself.
        importance: `abs`, `rms`, `std`, `freq` or `sqrt`.
        eps: Added to the retain importance; by default the paper's for the site.
        fraction: How many units a step prunes, as a part of all units of the site, in (0, 1].
        steps: Number of steps; `steps * fraction` is at most 1.
        iterative: Collect statistics on the partly pruned model at every step; otherwise rank once, on the base
            model, and prune the highest `step * fraction`.
        selector: `score`, or `random` for the baseline.
        tokens: Predictions for statistics and as many others for evaluation, from each corpus.
        context: Tokens in a window.
        seed: Of the order of documents and of the random selector.
        dtype: As `load_model` takes it, for a model given by name.
        device: Likewise.
        batch_size: Windows in a forward pass; by default about 4,096 tokens.
        out: The run folder; by default one below `runs/` named after the configuration.
        progress: Show progress bars and a line a step.

    Raises:
        DissectError: For any bad value, before anything is written; its message names the value and the fix.
    """
    config = PruneConfig(
        model=model if isinstance(model, str) else model.cfg.model_name,
        forget=_label(forget),
        retain=_label(retain),
        site=site if isinstance(site, str) else ",".join(f"{name}={part}" for name, part in site.items()),
        importance=importance,
        eps=eps,
        fraction=fraction,
        steps=steps,
        iterative=iterative,
        selector=selector,
        tokens=tokens,
        context=context,
        seed=seed,
        dtype=dtype,
        device=device,
        batch_size=batch_size,
    )
    return run_config(config, model=model, forget=forget, retain=retain, out=out, progress=progress)


def run_config(
    config: PruneConfig,
    *,
    model: Any = None,
    forget: Corpus | None = None,
    retain: Corpus | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Do what `config` says, or go on with it; `model`, `forget` and `retain` stand in for what it names.

    Raises:
        DissectError: As `prune`.
    """
    fractions = check_config(config)
    path = Path(out) if out is not None else default_out(config)
    run = open_run(path, config)
    if run is not None and run.finished:
        return run
    if model is None or isinstance(model, str):
        model = load_model(config.model, dtype=config.dtype, device=config.device)
    corpora = {"forget": forget or config.forget, "retain": retain or config.retain}
    windows = {side: _windows(corpora[side], model, config) for side in SIDES}
    record = _record(config, model, windows, fractions)
    if run is None:
        run = Run(path, config, record)
        run.create()
        run = Run.load(path)
    _check_same(run, record)
    work = _Work(config, model, windows, fractions, run, progress)
    for step in range(len(run.history), config.steps + 1):
        _take_step(work, step)
    return run


def check_config(config: PruneConfig) -> dict[str, float]:
    """Check every name and number that can be checked without the model; the fraction a step of each site.

    Raises:
        DissectError: One is wrong.
    """
    config.check()
    fractions = parse_sites(config.site, config.fraction)
    for corpus in (config.forget, config.retain):
        if not corpus.startswith(WINDOWS):
            find_source(corpus)
    get_importance(config.importance)
    for name, fraction in fractions.items():
        if config.selector == "score":
            check_importance(config.importance, get_site(name))
        if fraction * config.steps > 1 + 1e-9:
            raise DissectError(
                f"{config.steps} steps of fraction {fraction} are more than all units; "
                f"take at most {int(1 / fraction + 1e-9)} steps"
            )
    if "head" in fractions and "pre_out" in fractions:
        raise DissectError("sites 'head' and 'pre_out' share their units; prune one of them in a run")
    return fractions


@dataclass(frozen=True, eq=False)
class _Work:
    """What every step of a run in progress needs."""

    config: PruneConfig
    model: Any
    windows: dict[str, tuple[Windows, Windows]]
    fractions: dict[str, float]
    run: Run
    progress: bool


def _take_step(work: _Work, step: int) -> None:
    start = time.perf_counter()
    if step == 0:
        chosen = Mask.none(work.model, work.fractions)
        _save_base_stats(work)
    else:
        chosen = _choose(work, step)
    mask = chosen if step == 0 else work.run.mask() | chosen
    with ablated(work.model, mask):
        metrics = {
            side: evaluate(work.model, test, batch_size=work.config.batch_size, progress=work.progress)
            for side, (_, test) in work.windows.items()
        }
    line = {
        "step": step,
        "pruned": len(mask) / mask.total,
        "units": len(mask),
        "per_layer": mask.per_layer(),
        "seconds": round(time.perf_counter() - start, 3),
        "metrics": metrics,
    }
    if len(mask.sites) > 1:
        line["sites"] = {site: mask.per_layer(site) for site in mask.sites}
    work.run.commit(line, chosen)
    if work.progress:
        tqdm.write(describe_step(work.run, step))


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


def _choose(work: _Work, step: int) -> Mask:
    """The units that `step` adds, of each site by itself."""
    pruned = work.run.mask()
    counts = {site: _count(work, site, step) - _count(work, site, step - 1) for site in work.fractions}
    if work.config.selector == "random":
        picks = [
            _random(pruned, site, count, (work.config.seed, step, index))
            for index, (site, count) in enumerate(counts.items())
        ]
    else:
        forget, retain = (_stats(work, side, step) for side in SIDES)
        scores = score(
            forget=forget,
            retain=retain,
            importance=work.config.importance,
            eps=work.config.eps,
            sites=list(counts),
        )
        picks = [scores[site].top(count=count, exclude=pruned) for site, count in counts.items()]
    chosen = picks[0]
    for pick in picks[1:]:
        chosen = chosen | pick
    return chosen


def _count(work: _Work, site: str, step: int) -> int:
    """Units pruned after `step`, rounded from the start, so that 50 steps of 2% are all units."""
    return min(
        round(step * work.fractions[site] * work.run.pruned_at[site].numel()),
        work.run.pruned_at[site].numel(),
    )


def _random(pruned: Mask, site: str, count: int, seed: tuple[int, ...]) -> Mask:
    """`count` units of a site at random, from a generator of their own, so that a continued run draws the same."""
    free = (~pruned[site]).flatten().nonzero().flatten().numpy()
    chosen = torch.zeros(pruned[site].numel(), dtype=torch.bool)
    chosen[torch.from_numpy(np.random.default_rng(seed).choice(free, count, replace=False))] = True
    return Mask({site: chosen.reshape(pruned[site].shape)})


def _save_base_stats(work: _Work) -> None:
    if work.config.selector == "score":
        for side in SIDES:
            work.run.save_stats(side, _collect(work, side, None))


def _stats(work: _Work, side: str, step: int) -> Stats:
    """The statistics that `step` ranks by: the base model's, or from step 2 on those of the pruned model."""
    if step == 1 or not work.config.iterative:
        return work.run.stats(side)
    return _collect(work, side, get_importance(work.config.importance).moments)


def _collect(work: _Work, side: str, moments: tuple[str, ...] | None) -> Stats:
    mask = work.run.mask() if work.run.history else None
    with ablated(work.model, mask) if mask else nullcontext():
        return collect(
            work.model,
            work.windows[side][0],
            sites=list(work.fractions),
            moments=moments,
            batch_size=work.config.batch_size,
            progress=work.progress,
        )


def _label(corpus: Corpus) -> str:
    if isinstance(corpus, str):
        return corpus
    if not (isinstance(corpus, tuple) and len(corpus) == 2 and all(isinstance(part, Windows) for part in corpus)):
        raise DissectError(f"a corpus is a name or a (train, test) pair of Windows, got {type(corpus).__name__}")
    return WINDOWS + "+".join(part.fingerprint[:12] for part in corpus)


def _windows(corpus: Corpus, model: Any, config: PruneConfig) -> tuple[Windows, Windows]:
    if not isinstance(corpus, str):
        return corpus
    train, test = (
        load_windows(corpus, model, tokens=config.tokens, context=config.context, split=split, seed=config.seed)
        for split in ("train", "test")
    )
    return train, test


def _record(
    config: PruneConfig, model: Any, windows: dict[str, tuple[Windows, Windows]], fractions: dict[str, float]
) -> dict[str, Any]:
    """What `config.json` holds.

    Raises:
        DissectError: A step's fraction selects no unit of this model.
    """
    shapes = {site: get_site(site).mask_shape(model.cfg) for site in fractions}
    for site, fraction in fractions.items():
        count_of(fraction, int(np.prod(shapes[site])))
    return {
        "config": config_record(config),
        "versions": versions(),
        "model": {
            "name": model.cfg.model_name,
            "architecture": model.cfg.original_architecture,
            "dtype": str(model.cfg.dtype).removeprefix("torch."),
            "units": {site: list(shape) for site, shape in shapes.items()},
            "fingerprint": model_fingerprint(model),
        },
        "data": {side: {"train": train.describe(), "test": test.describe()} for side, (train, test) in windows.items()},
    }


def _check_same(run: Run, record: dict[str, Any]) -> None:
    """Raise unless a run that goes on reads the model and the text it began with."""
    for name in ("model", "data"):
        if run.record[name] != record[name]:
            raise DissectError(
                f"{run.path} began with another {name} than there is now; choose another --out "
                f"(then: {run.record[name]}, now: {record[name]})"
            )
