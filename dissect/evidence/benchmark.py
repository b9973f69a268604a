"""Standard benchmarks by lm-evaluation-harness, of the unpruned and of the pruned model side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from dissect.ablation.by_hooks import ablated
from dissect.backend.anatomy import is_masked
from dissect.base.checks import (
    as_list,
    as_path,
    check_batch_size,
    check_kind,
    check_model,
    check_seed,
    check_text,
    check_whole,
)
from dissect.base.checksums import checksum, checksum_of_tensors
from dissect.base.errors import DissectError
from dissect.base.progress import hidden
from dissect.base.storage import locked
from dissect.evidence.benchmark_folder import Kept, Measured, files_checksum, read_kept, write_kept
from dissect.evidence.benchmark_result import Benchmarks
from dissect.evidence.harness import check_installed, harness_version, load_tasks, measure, undisturbed
from dissect.evidence.run_model import check_pruned, model_of
from dissect.models.fingerprint import model_fingerprint, versions
from dissect.models.source import name_of
from dissect.runs.run import Run

FOLDER = "benchmarks"  # in a run folder


@dataclass(frozen=True)
class Asked:
    """How tasks are asked; the fields are arguments of `benchmark`."""

    limit: int | None
    shots: int | None
    chat_template: bool
    seed: int

    def check(self) -> None:
        """Raise `DissectError` for what cannot be."""
        for name, value, least in (("limit", self.limit, 1), ("shots", self.shots, 0)):
            if value is not None:
                check_whole(name, value, least)
        check_kind("chat_template", self.chat_template, bool, "True or False")
        check_seed(self.seed)


def benchmark(
    model_or_run: Any,
    tasks: str | Iterable[str],
    *,
    steps: Iterable[int] | None = None,
    limit: int | None = None,
    shots: int | None = None,
    chat_template: bool = False,
    include_path: str | os.PathLike[str] | None = None,
    model: Any = None,
    seed: int = 0,
    device: str | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Benchmarks:
    """Ask a model the tasks of lm-evaluation-harness: the unpruned one, and after steps of a run.

    Needs the extra `eval`. Questions, answers and numbers are lm-evaluation-harness's, with its standard errors; where
    these have no formula they are of 1,000 bootstraps. Log-probabilities are float32 (its option `softmax_dtype`).
    Units are cut by hooks, in the model that is loaded once.

    Of a run, all is kept in its folder's `benchmarks/`, a file a task: a later call with the same options reads it,
    and measures only steps that are not there yet. Two tasks need no hub: `human_eval_bits` and `true_false`.

    Args:
        model_or_run: A run; or a model, which is measured as it is: pruned, inside `with dissect.ablated(model, mask)`.
        tasks: Names of tasks, groups or tags: `["wmdp_bio", "mmlu"]`.
        steps: Of a run, the steps that are measured beside the unpruned model (step 0); by default the last.
        limit: Ask no more than so many documents of each task.
        shots: Solved examples before each question; by default as the task says.
        chat_template: Put questions in the model's chat template, examples as turns of the chat.
        include_path: A folder with YAML files of your own tasks, which may also take the place of known ones. Functions
            that these name are Python code, and run. Data that lie in it are part of what is kept, others are not.
        model: The run's model; loaded again by its name if not given. It is left as it was.
        seed: Decides which examples are shown.
        device: Where the run's model is loaded; by default where the run asked for.
        batch_size: Requests in a forward pass; 8 by default, and fewer where memory is short.
        progress: Show progress bars.

    Raises:
        DissectError: lm-evaluation-harness is not installed; a bad name or number; a task that cannot be run here (it
            samples, runs code, shows images), or whose data cannot be had; the run has pruned nothing, or its model
            cannot be loaded or is another one; or a file of `benchmarks/` is damaged.
    """
    names = _names(tasks)
    asked = Asked(limit, shots, chat_template, seed)
    asked.check()
    check_batch_size(batch_size)
    own = None if include_path is None else _folder(include_path)
    if model is not None:
        check_model(model)
    how = {"batch_size": batch_size, "progress": progress}
    if isinstance(model_or_run, Run):
        check_pruned(model_or_run)
        wanted = _steps(model_or_run, steps)
        check_installed()
        return _of_run(model_or_run, wanted, model, device, names, own, asked, how)
    check_model(model_or_run)
    for name, value in (("steps", steps), ("model", model), ("device", device)):
        if value is not None:
            raise DissectError(f"{name} is of a run; a model is measured as it is")
    check_installed()
    return _of_model(model_or_run, names, own, asked, how)


def _names(tasks: Any) -> list[str]:
    names = [tasks] if isinstance(tasks, str) else as_list("tasks", tasks, "names of tasks")
    for name in names:
        check_text("a task", name)
    if not names or len(set(names)) < len(names):
        raise DissectError(f"tasks must be at least one name, each once, got {', '.join(names) or 'none'}")
    return names


def _folder(include_path: Any) -> Path:
    path = as_path("include_path", include_path)
    if not path.is_dir():
        raise DissectError(f"include_path must be a folder with YAML files of tasks, got {path}")
    return path.resolve()


def _steps(run: Run, steps: Any) -> list[int]:
    """The steps to measure, in order, with the unpruned model first."""
    last = len(run.history) - 1
    chosen = [last] if steps is None else as_list("steps", steps, "whole numbers")
    for step in chosen:
        check_whole("a step", step, 0, last)
    return sorted({0, *map(int, chosen)})


def _of_model(model: Any, names: list[str], own: Path | None, asked: Asked, how: dict[str, Any]) -> Benchmarks:
    _check_answers(model, asked)
    with undisturbed(asked.seed, how["progress"]):
        loaded = load_tasks(names, own, asked.shots, asked.seed)
        found = {name: (_measured(model, loaded[name], None, 0, 0.0, "", asked, how),) for name in names}
    record = _record(asked, own) | {"versions": versions(), "model": model_fingerprint(model), "run": None}
    return Benchmarks(name_of(model), found, record)


def _of_run(
    run: Run,
    steps: Sequence[int],
    model: Any,
    device: str | None,
    names: list[str],
    own: Path | None,
    asked: Asked,
    how: dict[str, Any],
) -> Benchmarks:
    folder, sums = run.path / FOLDER, {step: _checksum_of_cut(run, step) for step in steps}
    record = _record(asked, own) | {"model": run.record["model"]["fingerprint"], "run": run.record["sha256"]}
    kept = {name: read_kept(folder, {"task": name, **record}) for name in names}
    missing = [(step, name) for step in steps for name in names if kept[name].of(step, sums[step]) is None]
    if missing:
        with undisturbed(asked.seed, how["progress"]), locked(folder), model_of(run, model, device) as found:
            _check_answers(found, asked)
            loaded = load_tasks(list(dict.fromkeys(name for _, name in missing)), own, asked.shots, asked.seed)
            kept = {name: read_kept(folder, {"task": name, **record}) for name in names}  # as it is now that it is ours
            bar = tqdm(missing, desc="benchmarks", unit="task", leave=False, disable=hidden(how["progress"]))
            for step, name in bar:
                with ablated(found, **run.cut(step)):
                    at, cut = run.history[step], sums[step]
                    new = _measured(found, loaded[name], step, at.units, at.pruned, cut, asked, how)
                kept[name] = kept[name].and_(new)
                write_kept(folder, kept[name])
    measured = {name: _in_order(kept[name], sums) for name in names}
    return Benchmarks(run.config.model, measured, record)


def _in_order(kept: Kept, sums: dict[int, str]) -> tuple[Measured, ...]:
    found = (kept.of(step, cut) for step, cut in sums.items())
    return tuple(each for each in found if each is not None)


def _checksum_of_cut(run: Run, step: int) -> str:
    mask = run.mask(step)
    return checksum_of_tensors({site: mask[site] for site in mask.sites})


def _record(asked: Asked, own: Path | None) -> dict[str, Any]:
    """What decides the numbers, beside the task, the model and the step."""
    return asdict(asked) | {"include": None if own is None else files_checksum(own), "lm_eval": harness_version()}


def _check_answers(model: Any, asked: Asked) -> None:
    """Raise `DissectError` for a model that cannot be asked, or not so."""
    if is_masked(model):
        raise DissectError("benchmarks ask what follows a text; a masked model fills gaps from both sides")
    if model.tokenizer is None:
        raise DissectError("the model has no tokenizer to read tasks with; give it one with load_model(tokenizer=...)")
    if asked.chat_template and not model.tokenizer.chat_template:
        raise DissectError(f"the tokenizer of {model.cfg.model_name} has no chat template; leave out chat_template")


def _measured(
    model: Any,
    loaded: Any,
    step: int | None,
    units: int,
    pruned: float,
    cut: str,
    asked: Asked,
    how: dict[str, Any],
) -> Measured:
    scores = measure(model, loaded, limit=asked.limit, chat_template=asked.chat_template, **how)
    template = checksum([str(model.tokenizer.chat_template)]) if asked.chat_template else None
    return Measured(step, units, pruned, cut, how["batch_size"], template, scores)
