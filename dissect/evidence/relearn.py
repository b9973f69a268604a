"""Does it come back? A pruned model and its controls are trained further, and measured as they go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from dissect.base.checks import as_path, check_model
from dissect.base.errors import DissectError
from dissect.base.progress import hidden, say
from dissect.base.storage import locked
from dissect.evaluation.evaluate import evaluate_documents
from dissect.evaluation.intervals import intervals
from dissect.evidence.curves import Curve, Point
from dissect.evidence.relearn_config import PRUNED, Arm, RelearnConfig, arms_of
from dissect.evidence.relearn_folder import open_folder, read_curve, state_file, write_curve
from dissect.evidence.relearning import MODELS, Relearning
from dissect.evidence.starts import Starts, starts_of
from dissect.evidence.texts import Texts, check_read, corpora_of, read_texts
from dissect.models.fingerprint import versions
from dissect.models.memory import copy_of
from dissect.models.snapshot import no_bars, snapshot
from dissect.runs.export import save_folder
from dissect.runs.inputs import Corpus
from dissect.runs.run import Run
from dissect.scoring.masks import Mask
from dissect.training.lora import check_peft, held_in_lora, with_lora
from dissect.training.training import Plan, Training

SAVED_EVERY = 60.0  # seconds at least between two states on disk: 1.6 GB each for SmolLM2-135M


def relearn(
    run_or_model: Any,
    *,
    mask: Mask | None = None,
    step: int | None = None,
    forget: Corpus | None = None,
    retain: Corpus | None = None,
    gold: Any = None,
    out: str | Path | None = None,
    on: str = "forget",
    steps: int = 20,
    windows: int = 8,
    learning_rates: tuple[float, ...] = (1e-4, 3e-4),
    ways: tuple[str, ...] = ("full",),
    frozen: tuple[bool, ...] = (True, False),
    rank: int = 8,
    alpha: float = 0.05,
    eval_tokens: int = 6_000,
    seed: int = 0,
    batch_size: int | None = None,
    save: bool = True,
    progress: bool = True,
) -> Relearning:
    """Train a pruned model and its controls on the forgotten text, and measure how fast it is back.

    Half of the train documents of `forget` are trained on (T). Measured are the test text of both sides, and train
    documents that no step reads (V), by which the cut was chosen as well. The pruned model, one with as many units cut
    at random, and the unpruned one read the same windows in the same order. Weights and AdamW's moments are float32;
    matrix products are in the run's dtype, and models are measured in it, so that what is measured is what `evaluate`
    gives of the folder that `Relearning.folder_of` names.

    With `on="retain"` they are trained on the text to keep instead (healing), and what that costs is the accuracy
    on `forget` that comes back with it.

    The same call resumes after Ctrl-C, and ends with the same numbers, bit for bit on a CPU. Model and run
    folder are left as they are.

    Args:
        run_or_model: A run, whose model is loaded anew; or an unpruned model that `load_model` gave.
        mask: For a model, the units to cut.
        step: For a run, the step whose mask is cut; by default the last.
        forget: `(train, test)` windows, or the name of a corpus as the run has it; by default the run's.
        retain: Likewise.
        gold: A model that never saw the forgotten text, as a further control: its name or folder, or loaded.
        out: The folder of the relearning; by default beside the run, named after it.
        on: `forget` or `retain`.
        steps: Steps of each training.
        windows: Windows a step reads.
        learning_rates: AdamW's, each a training of its own; adapters are trained at ten times the rate.
        ways: `full` for all weights, `lora` for adapters on every linear layer.
        frozen: True to hold what was cut at exactly zero, False to let it come back. Where its gradient is zero in
            every step, the two are the same, and the second is not run.
        rank: The rank of adapters.
        alpha: How near to the original accuracy counts as back, as a fraction of it.
        eval_tokens: At most so many predictions of each text that is measured.
        seed: Seed of the order of windows, of adapters, and of the random control.
        batch_size: Windows in a pass forward and back; by default about 1,024 tokens.
        save: Keep the trained models that were pruned, as transformers folders below `models/`.
        progress: Show a progress bar, with the time that is left.

    Raises:
        DissectError: For any bad value, before anything is written; a model that was not loaded by `load_model`, is
            masked, or is not the run's any more; text that the run was given as windows and that is not given again; a
            folder that holds something else or is in use; or a loss that is not finite.
        KeyboardInterrupt: On Ctrl-C; its message says what is kept and how to resume.
    """
    config = RelearnConfig(
        on=on,
        steps=steps,
        windows=windows,
        learning_rates=_as_tuple(learning_rates),
        ways=_as_tuple(ways),
        frozen=_as_tuple(frozen),
        rank=rank,
        alpha=alpha,
        eval_tokens=eval_tokens,
        seed=seed,
        batch_size=batch_size,
        save=save,
    )
    config.check()
    if "lora" in config.ways:
        check_peft()
    path = _folder(run_or_model, out, on)
    given = {"forget": forget, "retain": retain}
    if not isinstance(run_or_model, Run):
        check_model(run_or_model)
    corpora_of(run_or_model, given)
    starts = starts_of(run_or_model, mask, step, gold, seed)
    texts = read_texts(run_or_model, given, starts.whole, config)
    for model in (starts.whole, starts.gold):
        if model is not None:
            check_read(texts, model)
    starts.start(PRUNED)  # a cut that has no place in a transformers model is refused here
    record = {"config": config.as_json(), "model": starts.identity(), "data": texts.describe(), "versions": versions()}
    try:
        with locked(path):
            open_folder(path, record)
            curves = _Work(path, config, starts, texts, progress).run()
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"interrupted; what was measured is kept in {path}, and the same call or command resumes from there"
        ) from error
    return Relearning(path, config, record, curves)


def _as_tuple(values: Any) -> Any:
    return tuple(values) if isinstance(values, list) else values


def _folder(run_or_model: Any, out: str | Path | None, on: str) -> Path:
    if out is not None:
        return as_path("out", out)
    if not isinstance(run_or_model, Run):
        raise DissectError("give out, the folder to keep the relearning of a model in memory in")
    return run_or_model.path.with_name(f"{run_or_model.path.name}-{'relearn' if on == 'forget' else 'heal'}")


@dataclass(eq=False)
class _Work:
    """A relearning in progress."""

    path: Path
    config: RelearnConfig
    starts: Starts
    texts: Texts
    progress: bool
    _first: dict[str, Point] = field(default_factory=dict, init=False)
    _seconds: dict[str, float] = field(default_factory=dict, init=False)

    def run(self) -> tuple[Curve, ...]:
        """All trainings that are left, and the curves of all."""
        arms = arms_of(self.config, gold=self.starts.gold is not None)
        found = {arm.name: read_curve(self.path, arm) for arm in arms}
        left = [arm for arm in arms if not found[arm.name][1]]
        curves = {name: curve for name, (curve, finished) in found.items() if finished}
        if left and self.progress:
            say(self._plan(left))
        total = len(arms) * self.config.steps
        shown = {"desc": "relearn", "unit": "step", "leave": False, "total": total}
        # What was done before takes no part in the time that is left.
        done = total - len(left) * self.config.steps
        with no_bars(), tqdm(initial=done, **shown, disable=hidden(self.progress)) as bar:
            for arm in left:
                curves[arm.name] = self._equal(arm, curves) or self._train(arm, found[arm.name][0], bar)
                bar.n = len(curves) * self.config.steps
                bar.refresh()
        return tuple(curves[arm.name] for arm in arms)

    def _plan(self, left: list[Arm]) -> str:
        windows, width = self.texts.train.tokens.shape
        of_one = ", half of one document" if self.texts.of_one else ""
        predictions = sum(text.n_kept for text in self.texts.measured.values())
        return (
            f"{len(left)} trainings of {self.config.steps} steps, each step {self.config.windows} windows of {width} "
            f"tokens ({windows} to train on{of_one}); measured after {', '.join(map(str, self.config.measured_at))} "
            f"steps on {predictions:,} predictions"
        )

    def _equal(self, arm: Arm, curves: Mapping[str, Curve]) -> Curve | None:
        """The curve of a training that is free to bring back what was cut, where the one that is held has shown it.

        Where no gradient was held back, the two take the same steps. Adapters begin elsewhere, and are trained.
        """
        held = curves.get(replace(arm, frozen=True).name) if arm.frozen is False and arm.way == "full" else None
        if held is None or held.pushed:
            return None
        curve = replace(held, arm=arm, same_as=held.arm.name)
        write_curve(self.path, curve, finished=True)
        return curve

    def _train(self, arm: Arm, curve: Curve, bar: Any) -> Curve:
        """Train one model, from where it was stopped; what was measured already is not measured again."""
        training = self._training(arm)
        state, saved = state_file(self.path, arm), time.monotonic()
        if state.exists():
            training.resume(state)
            bar.update(training.step)
        for step in self.config.measured_at:
            if step >= training.step:
                training.advance(step, self._tick(bar))
                if step not in curve.steps:
                    point = self._measure(arm, training)
                    curve = replace(curve, points=(*curve.points, point), pushed=training.pushed)
                    write_curve(self.path, curve, finished=False)
                if time.monotonic() - saved > SAVED_EVERY and step < self.config.steps:
                    training.save(state)
                    saved = time.monotonic()
        curve = replace(curve, pushed=training.pushed)
        if self.config.save and arm.model == PRUNED:
            self._save_model(arm, training)
        write_curve(self.path, curve, finished=True)
        state.unlink(missing_ok=True)
        return curve

    def _tick(self, bar: Any) -> Any:
        """What counts a step, and says after the first how long all will take."""
        began = time.monotonic()

        def tick() -> None:
            bar.update()
            if "step" not in self._seconds:
                self._seconds["step"] = time.monotonic() - began
                if self.progress and "measure" in self._seconds:
                    say(self._estimate(bar.total - bar.n))

        return tick

    def _estimate(self, steps: int) -> str:
        measured = len(self.config.measured_at) - 1
        a_step, a_measure = self._seconds["step"], self._seconds["measure"]
        minutes = (steps * a_step + steps / self.config.steps * measured * a_measure) / 60
        return (
            f"a step takes {a_step:.1f} s and measuring {a_measure:.1f} s: at most {minutes:.0f} minutes in all; Ctrl-C"
            " keeps what is done"
        )

    def _training(self, arm: Arm) -> Training:
        hf_model, held = self.starts.start(arm.model)
        held = held if arm.frozen else {}
        if arm.way == "lora":
            hf_model = with_lora(hf_model, rank=self.config.rank, seed=self.config.seed)
            held = held_in_lora(hf_model, held)
        else:
            hf_model.requires_grad_(True)
        plan = Plan(
            arm.rate,
            windows=self.config.windows,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            dtype=_autocast(self.starts.whole.cfg.dtype),
        )
        return Training(hf_model.eval(), self.texts.train, plan, held)  # without dropout, which would be noise here

    def _measure(self, arm: Arm, training: Training) -> Point:
        """What the model predicts now; before the first step, all trainings of a model have that in common."""
        if training.step == 0 and arm.model in self._first:
            return self._first[arm.model]
        began = time.monotonic()
        model = snapshot(training.model, like=self.starts.like(arm.model))
        sums = {name: evaluate_documents(model, text, progress=False) for name, text in self.texts.measured.items()}
        ends = {name: (intervals({name: found}, {name: found})[name] or {}).get("top1") for name, found in sums.items()}
        point = Point(
            training.step,
            {name: found.metrics() for name, found in sums.items()},
            {name: None if pair is None else (pair[0], pair[1]) for name, pair in ends.items()},
        )
        self._seconds.setdefault("measure", time.monotonic() - began)
        if training.step == 0:
            self._first[arm.model] = point
        return point

    def _save_model(self, arm: Arm, training: Training) -> None:
        """The trained model as a transformers folder, in the run's dtype."""
        like, folder = self.starts.like(arm.model), self.path / MODELS / arm.name
        if folder.is_dir():
            return
        trained = copy_of(training.model, like.cfg.dtype, torch.device("cpu"))
        save_folder(trained, like, CARD.format(name=like.cfg.model_name, arm=arm.name, steps=training.step), folder)


def _autocast(dtype: torch.dtype) -> torch.dtype:
    """bfloat16 for a model in any 16 bits: float16 would want its losses scaled."""
    return torch.float32 if dtype in (torch.float32, torch.float64) else torch.bfloat16


CARD = """# {name}, pruned and trained further

Units were cut in the weights, and {steps} steps of training followed (`{arm}`), to see what comes back. Made by
`dissect relearn`: the folder that holds this one says how.
"""
