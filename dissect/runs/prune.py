"""The procedure: score units, prune the highest, measure what is lost, again and again; the run on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from dissect.ablation.svd import rotate
from dissect.ablation.weight_edit import WeightEdit
from dissect.backend.sites import get_site
from dissect.base.checks import as_path, check_fraction, check_kind, check_model
from dissect.base.errors import DissectError
from dissect.base.options import HeadScore, Selector, Value
from dissect.base.progress import hidden, say
from dissect.base.ranks import RankLost, distributed, everywhere, from_main, is_main, on_main, rank
from dissect.base.storage import locked
from dissect.base.undo import undoing
from dissect.data.corpora import find_source
from dissect.data.shared import notes, shared_documents
from dissect.data.tables import HubError
from dissect.data.windows import Windows
from dissect.evaluation.evaluate import Reference, reference_of
from dissect.models.fingerprint import model_fingerprint, versions
from dissect.models.load import load_model, name_of
from dissect.runs.config import PruneConfig, default_out, parse_sites, run_name
from dissect.runs.differences import record_differences
from dissect.runs.inputs import WINDOWS, Corpus, InMemory, LastModel, describe, label, read
from dissect.runs.origin import origin
from dissect.runs.run import CONFIG, SIDES, Run, config_record, open_run, run_bytes, run_of_bytes
from dissect.runs.steps import Work, take_step
from dissect.scoring.importance import get_importance
from dissect.scoring.scores import check_importance, count_of

T = TypeVar("T")
Load = LastModel | InMemory


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
    match: str | Path | None = None,
    head: HeadScore = "mean",
    value: Value = "zero",
    svd: bool = False,
    force: bool = False,
    kl: bool = False,
    tokens: int = 100_000,
    eval_tokens: int | None = None,
    first_position: bool = False,
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
    ends with the same files. A finished run is given back, but never one of another model or text: it is compared
    with what there is now. The model is left as it was: the run's masks prune it again (`run.mask(step)`).

    Ctrl-C drops the step in progress, of which nothing counts, and says how to go on. One process at a time writes to
    a run folder.

    Started by torchrun, all processes share the work of the run (see `distributed`); the main one alone writes and
    prints. The run goes on later with any other number of them.

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
        selector: `score`; `random` for the baseline; or `layer-random`, at random but in each layer as many as the
            run `match` prunes there.
        match: The folder of that run.
        head: `mean` or `median`: how the scores of a head's neurons become the head's own.
        value: What a pruned unit is set to: `zero`, or its `mean` on the retain corpus's train windows.
        svd: Rotate attention to the singular basis of each value head for this run (see `rotate_to_svd`).
        force: Allow importance `freq` on attention sites.
        kl: Also measure the KL divergence from the unpruned model on the retain corpus. It keeps d_model numbers in
            memory for each prediction.
        tokens: Predictions for statistics, from each corpus.
        eval_tokens: Others for evaluation; as many as for statistics if not given.
        first_position: Statistics also count the first position of each window, as the authors' own code does.
        context: Tokens in a window.
        seed: Of the order of documents and of the random selector.
        dtype: As `load_model` takes it, for a model given by name.
        device: Likewise.
        batch_size: Windows in a forward pass; by default about 2,048 tokens on a CPU, more on a GPU. Never fewer where
            memory is short, but an error: a run that continues has the same batches.
        out: The run folder; by default one below `runs/` named after the configuration and the model's content.
        progress: Show progress bars and a line a step.

    Raises:
        DissectError: For any bad value, before anything is written; its message names the value and the fix. Also
            where the folder is damaged, in use by another process, or cannot be written to.
        KeyboardInterrupt: On Ctrl-C; its message says what is kept and how to go on.
        RankLost: Another process of a torchrun job has ended.
    """
    if not isinstance(model, str):
        check_model(model)
    config = PruneConfig(
        model=model if isinstance(model, str) else name_of(model),
        forget=label(forget),
        retain=label(retain),
        site=_sites(site),
        importance=importance,
        eps=eps,
        fraction=fraction,
        steps=steps,
        iterative=iterative,
        selector=selector,
        match=None if match is None else str(as_path("match", match)),
        head=head,
        value=value,
        svd=svd,
        force=force,
        kl=kl,
        tokens=tokens,
        eval_tokens=eval_tokens,
        first_position=first_position,
        context=context,
        seed=seed,
        dtype=dtype,
        device=device,
        batch_size=batch_size,
    )
    load = None if isinstance(model, str) else InMemory(model)
    return run_config(config, load=load, forget=forget, retain=retain, out=out, progress=progress)


def run_config(
    config: PruneConfig,
    *,
    load: Load | None = None,
    forget: Corpus | None = None,
    retain: Corpus | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Do what `config` says, or go on with it; a finished run is compared with what there is now and given back.

    `load` gives the model, only if something is left to do or to compare; `forget` and `retain` stand in for what
    `config` names.

    Raises:
        DissectError: As `prune`.
    """
    load, path = load or LastModel(), None
    corpora = {"forget": forget or config.forget, "retain": retain or config.retain}
    try:
        with distributed(), ExitStack() as lock:
            fractions = everywhere(lambda: check_config(config))
            path = everywhere(lambda: _folder(config, load, out))
            run = _on_every_rank(path, lambda: _found(path, config, load))
            if run is not None and run.finished:
                on_main(lambda: check_finished(run, load, corpora))
                return run
            if run is not None:
                on_main(lambda: lock.enter_context(locked(path)))
            model, windows, record = everywhere(lambda: _prepared(config, load, corpora))
            record = _as_main_has(record)
            matched = _matched(config, record, run)
            if matched is not None:
                record["matched"] = counts_checksum(matched, config.steps)
            if run is None:  # only now is there something to write, and to lock
                on_main(lambda: lock.enter_context(locked(path)))
                for text in notes(windows) if is_main() else ():
                    say(f"note: {text}")
            run = _on_every_rank(path, lambda: _opened(path, config, load, record))
            _take_steps(Work(config, model, windows, fractions, run, progress and is_main(), matched))
            return run
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_how_to_go_on(path)) from error
    except RankLost as error:
        raise RankLost(f"{error}; {_how_to_go_on(path)}") from error


def _folder(config: PruneConfig, load: Load, out: str | Path | None) -> Path:
    """The run's folder: `out`, or one below `runs/` that no other model's run has."""
    if out is not None:
        return as_path("out", out)
    in_memory = isinstance(load, InMemory)
    content = model_fingerprint(load.model) if in_memory else load.checksum(config)
    names = (config.model, load.model.cfg.model_name) if in_memory else (config.model,)
    for name in names:  # where runs were begun before the model's content was part of the folder's name
        before = Path("runs") / run_name(replace(config, model=name))
        if (before / CONFIG).exists() and (not in_memory or Run.load(before).record["model"]["fingerprint"] == content):
            return before
    return default_out(config, content)


def _found(path: Path, config: PruneConfig, load: Load) -> Run | None:
    """The run in a folder, if there is one. A model in memory is told by its content, whatever its name."""
    return open_run(path, config, apart_from=("model",) if isinstance(load, InMemory) else ())


def check_finished(run: Run, load: Load, corpora: Mapping[str, Corpus]) -> None:
    """Raise unless a finished run is of the model, the text and the run to match that there are now.

    Weights are not read where their files are known to be what they were. What cannot be had is not compared, which
    is said: a run is not lost with its model or with the hub.

    Raises:
        DissectError: It is of another.
    """
    parts = {
        "model": lambda: _model_now(run, load),
        "data": lambda: _data_now(run, load, corpora),
        "matched": lambda: _matched_now(run),
    }
    for part, now in parts.items():
        try:
            here = now()
        except NotThere as error:
            tqdm.write(f"note: {run.path} is finished, and its {part} was not compared with what there is now: {error}")
        else:
            check_same(run, {part: here} if here is not None else {})


class NotThere(DissectError):
    """What a finished run is of cannot be had any more."""


def _had(find: Callable[[], T], kind: type[DissectError] = DissectError) -> T:
    try:
        return find()
    except kind as error:
        raise NotThere(str(error)) from error


def _model_now(run: Run, load: Load) -> dict[str, Any] | None:
    """What the model would be recorded as; None where its files are what they were."""
    checksum = _had(lambda: load.checksum(run.config))
    if checksum is not None and checksum == run.record["began"].get("checksum"):
        return None
    return _model_record(load(run.config), run.pruned_at)


def _data_now(run: Run, load: Load, corpora: Mapping[str, Corpus]) -> dict[str, Any]:
    if any(isinstance(corpus, str) for corpus in corpora.values()):
        _had(lambda: load.checksum(run.config))  # text by name is read with the model's tokenizer
    return {
        side: _had(partial(load.describe, run.config, side), HubError) if isinstance(text, str) else describe(text)
        for side, text in corpora.items()
    }


def _matched_now(run: Run) -> str | None:
    if run.config.match is None:
        return None
    folder = Path(run.config.match)
    return counts_checksum(_had(lambda: Run.load(folder)), run.config.steps)


def _prepared(
    config: PruneConfig, load: Load, corpora: Mapping[str, Corpus]
) -> tuple[Any, dict[str, tuple[Windows, Windows]], dict[str, Any]]:
    """Model, windows and record of a run."""
    checksum = load.checksum(config)  # before the weights are read, so that later ones are noticed
    model = load(config)
    windows, record = reading(config, model, **corpora)
    record["began"]["checksum"] = checksum
    return model, windows, record


def _on_every_rank(path: Path, find: Callable[[], Run | None]) -> Any:
    """The run that the main rank finds, on every rank."""
    return from_main(find, run_bytes, lambda data: run_of_bytes(path, data))


def _as_main_has(record: dict[str, Any]) -> dict[str, Any]:
    """The main rank's record.

    Raises:
        DissectError: This rank, or another, has another model or other text.
    """
    mains = from_main(lambda: record, lambda record: json.dumps(record).encode(), json.loads)
    everywhere(lambda: _check_ranks_agree(mains, record))
    return mains


def _check_ranks_agree(mains: dict[str, Any], mine: dict[str, Any]) -> None:
    for name in ("model", "data"):
        if json.dumps(mains[name]) != json.dumps(mine[name]):
            raise DissectError(
                f"rank {rank()} has another {name} than rank 0: give all machines the same files and packages "
                f"(rank 0: {mains[name]}, rank {rank()}: {mine[name]})"
            )


def _opened(path: Path, config: PruneConfig, load: Load, record: dict[str, Any]) -> Run:
    """The run in a folder that is locked, as the process before has left it; begun where there is none."""
    if _found(path, config, load) is None:
        Run(path, config, record).create()
    run = Run.load(path)
    check_same(run, record)
    return run


def _take_steps(work: Work) -> None:
    """The steps that are left; on leaving, also by an error or Ctrl-C, the model is as it was."""
    rotation = WeightEdit()
    with undoing(rotation.restore):
        if work.config.svd:
            rotate(rotation, work.model)
        if work.config.kl:
            work = replace(work, reference=_reference(work))
        done, total = len(work.run.history), work.config.steps + 1
        steps = range(done, total)
        for step in tqdm(steps, desc="run", unit="step", initial=done, total=total, disable=hidden(work.progress)):
            take_step(work, step)


def _how_to_go_on(path: Path | None) -> str:
    if path is None or not (path / CONFIG).exists():
        return "interrupted before the first step; nothing was written" + (f" to {path}" if path else "")
    return f"interrupted; finished steps are kept in {path}, and the same call or command goes on from there"


def _reference(work: Work) -> Reference:
    windows = work.windows["retain"][1]
    return reference_of(work.model, windows, seed=work.config.seed, batch_size=work.batch_size(windows))


def _matched(config: PruneConfig, record: dict[str, Any], begun: Run | None) -> Run | None:
    """The run whose layers are matched; a run that is `begun` goes on with the fraction it has.

    Raises:
        DissectError: It is of another model or of other sites, has fewer steps than this one is to have, or another
            fraction, which nothing would come of.
    """
    if config.match is None:
        return None
    folder = as_path("match", config.match)
    matched = _on_every_rank(folder, lambda: Run.load(folder))
    if matched.record["model"]["units"] != record["model"]["units"]:
        raise DissectError(f"{config.match} prunes other units than this run: {matched.record['model']['units']}")
    if matched.record["model"]["fingerprint"] != record["model"]["fingerprint"]:
        raise DissectError(f"{config.match} is of a model with other weights than this run; match a run of this one")
    theirs = parse_sites(matched.config.site, matched.config.fraction)
    if begun is None and theirs != parse_sites(config.site, config.fraction):
        raise DissectError(
            f"layer-random prunes as many units as {config.match}, at each step "
            f"{', '.join(f'{part} of {site}' for site, part in theirs.items())}; give that as the fraction"
        )
    if len(matched.history) <= config.steps:
        raise DissectError(
            f"{config.match} has {len(matched.history) - 1} steps, fewer than the {config.steps} to match"
        )
    return matched


def check_config(config: PruneConfig) -> dict[str, float]:
    """Check every name and number that can be checked without the model; the fraction a step of each site.

    Raises:
        DissectError: One is wrong.
    """
    config.check()
    fractions = parse_sites(config.site, config.fraction)
    if config.match is not None:
        as_path("match", config.match)
    for corpus in (config.forget, config.retain):
        if not corpus.startswith(WINDOWS):
            find_source(corpus)
    get_importance(config.importance)
    for name, fraction in fractions.items():
        if config.selector == "score":
            check_importance(config.importance, get_site(name), force=config.force)
        if fraction * config.steps > 1 + 1e-9:
            raise DissectError(
                f"{config.steps} steps of fraction {fraction} are more than all units; "
                f"take at most {int(1 / fraction + 1e-9)} steps"
            )
    if "head" in fractions and "pre_out" in fractions:
        raise DissectError("sites 'head' and 'pre_out' share their units; prune one of them in a run")
    return fractions


def _sites(site: Any) -> str:
    """Sites as a configuration holds them."""
    if isinstance(site, str):
        return site
    check_kind("site", site, Mapping, "a name, or a fraction by name such as {'mlp': 0.02, 'pre_out': 0.01}")
    for name, fraction in site.items():
        get_site(name)
        check_fraction(fraction)
    return ",".join(f"{name}={part}" for name, part in site.items())


def _model_record(model: Any, sites: Iterable[str]) -> dict[str, Any]:
    """What a run records of its model."""
    return {
        "name": model.cfg.model_name,
        "architecture": model.cfg.original_architecture,
        "dtype": str(model.cfg.dtype).removeprefix("torch."),
        "units": {site: list(get_site(site).mask_shape(model.cfg)) for site in sites},
        "fingerprint": model_fingerprint(model),
    }


def _record(
    config: PruneConfig, model: Any, windows: dict[str, tuple[Windows, Windows]], fractions: dict[str, float]
) -> dict[str, Any]:
    """What `config.json` holds.

    Raises:
        DissectError: A step's fraction selects no unit of this model.
    """
    for site, fraction in fractions.items():
        count_of(fraction, math.prod(get_site(site).mask_shape(model.cfg)))
    return {
        "config": config_record(config),
        "versions": versions(),
        "model": _model_record(model, fractions),
        "data": {side: describe(pair) for side, pair in windows.items()},
        "shared_documents": shared_documents(windows),
        "began": origin(model),
    }


def check_same(run: Run, record: Mapping[str, Any]) -> None:
    """Raise unless a run is of the model, the text and the run to match that a record of now is of."""
    for first in record_differences(run.record, record):
        part = first.what.partition(".")[0]
        raise DissectError(
            f"{run.path} began with another {part} than there is now; choose another --out "
            f"({first.what}: {first.there} then, {first.here} now)"
        )


def counts_checksum(matched: Run, steps: int) -> str:
    """sha256 over how many units a run prunes in each layer, step by step: what a run that matches it takes of it."""
    counts = [{site: matched.mask(step).per_layer(site) for site in matched.pruned_at} for step in range(steps + 1)]
    return hashlib.sha256(json.dumps(counts).encode()).hexdigest()


def reading(
    config: PruneConfig, model: Any, forget: Corpus | None = None, retain: Corpus | None = None
) -> tuple[dict[str, tuple[Windows, Windows]], dict[str, Any]]:
    """What a run of `config` reads, its (train, test) windows of each side, and what its record would say now.

    Raises:
        DissectError: A corpus is neither a name nor two Windows, or cannot be read.
    """
    given = {"forget": forget, "retain": retain}
    corpora = {side: getattr(config, side) if corpus is None else corpus for side, corpus in given.items()}
    for corpus in corpora.values():
        label(corpus)
    windows = {side: read(corpora[side], model, config) for side in SIDES}
    return windows, _record(config, model, windows, parse_sites(config.site, config.fraction))


def load_again(run: Run, fix: str, device: str | None = None) -> Any:
    """The model that a run's record names, in the dtype it had.

    Raises:
        DissectError: It cannot be had; the message ends with `fix`.
    """
    name, dtype = run.config.model, run.record["model"]["dtype"]
    try:
        return load_model(name, dtype=dtype, device=device or run.config.device)
    except DissectError as error:
        raise DissectError(f"cannot load the model of {run.path} again: {error}; {fix}") from error
