"""A run on disk: its configuration, history, and the step that pruned each unit.

`config.json` the configuration, versions and fingerprints; `history.jsonl` a line a step; `pruned_at.safetensors`
int16 per unit, the step that pruned it or -1, so that every step's mask is in one tensor;
`stats-forget.safetensors` and `stats-retain.safetensors` the base model's statistics, to score again without it;
`documents-forget.safetensors` and `documents-retain.safetensors` what it predicts of each document, for intervals.
The history line is what commits a step: anything else of a step that has no line is not part of the run.
It also holds digests, of itself (`seconds` apart), of what is pruned and of the base model's files, as `config.json`
holds its own: a file that was cut off or changed is named when it is read, and never used.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int16
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dissect.base.checks import LARGEST, as_list, as_path, check_kind, check_whole
from dissect.base.digests import digest_of, digest_of_file, is_intact, sealed
from dissect.base.errors import DissectError, check_name, look_up, shown
from dissect.base.ranks import from_main, on_main
from dissect.base.storage import (
    MOST_JSON,
    MOST_TENSORS,
    check_file,
    parse_json,
    read_bytes,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from dissect.evaluation.documents import DocumentSums
from dissect.evaluation.intervals import NAMES
from dissect.runs.config import PruneConfig
from dissect.runs.records import SIDES, check_line, read_config
from dissect.runs.summary import Interval, Summary, drop_at, relative_drop
from dissect.scoring.masks import Mask
from dissect.scoring.scores import Scores, score
from dissect.scoring.stats import Stats

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

KEPT = -1
MOST_HEADER = 100_000  # bytes of a safetensors header, which names its tensors
CONFIG, HISTORY, PRUNED_AT = "config.json", "history.jsonl", "pruned_at.safetensors"
BASE = ("stats", "documents")  # what is kept of the base model, a file a side


@dataclass(eq=False)
class Run:
    """A pruning run, finished or not.

    Attributes:
        path: Its folder.
        config: What was asked for.
        record: All of `config.json`: versions, fingerprints of model and data.
        history: One dict a step, from the base model at step 0 on; the keys are those of `history.jsonl`.
        pruned_at: By site, the step that pruned each unit, -1 if kept, int16 `layer *unit`.
    """

    path: Path
    config: PruneConfig
    record: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    pruned_at: dict[str, Int16[Tensor, " layer *unit"]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Open a run folder.

        Raises:
            DissectError: It is not one, or a file of it is damaged.
        """
        path = as_path("run", path)
        record = read_json(path / CONFIG)
        if not is_intact(record):
            raise _damaged(path / CONFIG, "it does not match its own sha256")
        try:
            config, shapes = read_config(record)
        except DissectError as error:
            raise DissectError(f"{path / CONFIG} is not the configuration of a run: {error}") from error
        run = cls(path, config, record)
        run.pruned_at = {site: torch.full(shape, KEPT, dtype=torch.int16) for site, shape in shapes.items()}
        run._read_history()
        return run

    def _read_history(self) -> None:
        """Read history and masks, and check one by the other.

        A step that was cut off before its history line is not part of the run; one of a run in progress that was
        taken between the two reads is.
        """
        text = self._history_text()
        stored = self._stored_masks() if text is not None or (self.path / PRUNED_AT).exists() else {}
        if self._history_text() != text:
            return self._read_history()
        self.history = [] if text is None else self._parsed(text)
        for site, steps in stored.items():
            self.pruned_at[site] = torch.where(steps > len(self.history) - 1, KEPT, steps)
        if self.history and self.history[-1]["digests"].get("pruned_at") != digest_of(self.pruned_at):
            raise _damaged(self.path / PRUNED_AT, f"it does not match its digest in {HISTORY}")
        if any((steps > len(self.history)).any() for steps in stored.values()):
            there = f"it has {len(self.history)} lines" if text is not None else "it is missing"
            raise _damaged(self.path / HISTORY, f"{there}, and {self.path / PRUNED_AT} holds later steps")
        return None

    def _history_text(self) -> str | None:
        path = self.path / HISTORY
        try:
            return read_bytes(path, MOST_JSON).decode("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error

    def _parsed(self, text: str) -> list[dict[str, Any]]:
        """The lines of a history.

        Raises:
            DissectError: One is cut off, changed, missing or in the wrong place, or holds something else.
        """
        path, shapes = self.path / HISTORY, {site: tuple(at.shape) for site, at in self.pruned_at.items()}
        *lines, rest = text.split("\n")
        if rest or not lines:
            raise _damaged(path, "its last line is cut off")
        if len(lines) > self.config.steps + 1:
            raise _damaged(path, f"it has {len(lines)} lines, and the run {self.config.steps} steps")
        try:
            history = [parse_json(line) for line in lines]
        except ValueError as error:
            raise _damaged(path, error) from error
        for number, line in enumerate(history):
            if not is_intact(line):
                raise _damaged(path, f"line {number + 1} does not match its own sha256")
            if line.get("step") != number:
                raise _damaged(path, f"line {number + 1} should be step {number}, not {shown(line.get('step'))}")
            try:
                check_line(line, shapes)
            except DissectError as error:
                raise _damaged(path, f"in line {number + 1}, {error}") from error
        return history

    def _stored_masks(self) -> dict[str, Int16[Tensor, " layer *unit"]]:
        path = self.path / PRUNED_AT
        try:
            most = 2 * sum(at.numel() for at in self.pruned_at.values()) + MOST_HEADER
            stored = load(read_bytes(path, most))
            for site, mine in self.pruned_at.items():
                if stored[site].shape != mine.shape or stored[site].dtype != torch.int16:
                    raise ValueError(f"site {site!r} is {stored[site].dtype} {tuple(stored[site].shape)}")
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise _damaged(path, error) from error
        return {site: stored[site] for site in self.pruned_at}

    def create(self) -> None:
        """Write `config.json` into its folder."""
        write_json(self.path / CONFIG, sealed(self.record))

    def commit(self, line: dict[str, Any], chosen: Mask) -> None:
        """Add a step: first what it pruned, then the history line that makes it count.

        Every rank has the step then, as the main one has written it.
        """
        pruned_at = dict(self.pruned_at)
        for site in chosen.sites:
            pruned_at[site] = torch.where(chosen[site], len(self.history), pruned_at[site]).to(torch.int16)
        history = from_main(lambda: self._write_step(line, pruned_at), _json_bytes, json.loads)
        self.pruned_at, self.history = pruned_at, history

    def _write_step(
        self, line: dict[str, Any], pruned_at: dict[str, Int16[Tensor, " layer *unit"]]
    ) -> list[dict[str, Any]]:
        """The history with the line in it, after all is on disk."""
        history = [*self.history, sealed({**line, "digests": self._digests_of_step(pruned_at)})]
        write_bytes(self.path / PRUNED_AT, save(pruned_at))
        write_text(self.path / HISTORY, "".join(json.dumps(line) + "\n" for line in history))
        return history

    def _digests_of_step(self, pruned_at: dict[str, Int16[Tensor, " layer *unit"]]) -> dict[str, str]:
        """What a history line holds against damage: of the masks at that step, and at step 0 of the base's files."""
        paths = [self._base_path(kind, side) for kind in BASE for side in SIDES] if not self.history else []
        files = {path.stem: digest_of_file(path) for path in paths if path.exists()}
        return {"pruned_at": digest_of(pruned_at), **files}

    @property
    def finished(self) -> bool:
        """True where all steps have been taken."""
        return len(self.history) == self.config.steps + 1

    def mask(self, step: int | None = None) -> Mask:
        """The units pruned up to and including `step`; by default the last step there is.

        Raises:
            DissectError: The run has no such step.
        """
        last = max(0, len(self.history) - 1)
        step = last if step is None else step
        check_whole("step", step, -LARGEST)
        if not 0 <= step <= last:
            raise DissectError(f"step {step} is outside this run's steps 0 to {last}")
        return Mask({site: (at != KEPT) & (at <= step) for site, at in self.pruned_at.items()})

    def save_stats(self, side: str, stats: Stats) -> None:
        """Keep the base model's statistics of `forget` or `retain`."""
        on_main(lambda: stats.save(self._base_path("stats", side)))

    def save_documents(self, side: str, sums: DocumentSums) -> None:
        """Keep what the base model predicts of each document of `forget` or `retain`."""
        on_main(lambda: sums.save(self._base_path("documents", side)))

    def stats(self, side: str) -> Stats:
        """The base model's statistics of `forget` or `retain`; a random run has none.

        Raises:
            DissectError: The run has none, or their file is missing or damaged.
        """
        path = self._intact("stats", side)
        stats = Stats.load(path)
        for site, at in self.pruned_at.items():
            if stats[site].shape[: at.ndim] != tuple(at.shape):
                raise _damaged(path, f"its {site} units are {stats[site].shape}, the run's {tuple(at.shape)}")
        return stats

    def documents(self, side: str) -> DocumentSums:
        """What the base model predicts of each evaluated document of `forget` or `retain`.

        Raises:
            DissectError: Their file is missing or damaged.
        """
        return DocumentSums.load(self._intact("documents", side))

    def _intact(self, kind: str, side: str) -> Path:
        """The path of a file of the base model that is what it was when it was written."""
        check_name("side", side, SIDES)
        path, expected = self._base_path(kind, side), self._base_digest(kind, side)
        try:
            check_file(path, MOST_TENSORS)
        except OSError as error:
            raise DissectError(f"{path} is missing or unreadable: {error.strerror or error}") from error
        if self.history and expected != digest_of_file(path):
            raise _damaged(path, f"it does not match its digest in {HISTORY}")
        return path

    def _base_path(self, kind: str, side: str) -> Path:
        return self.path / f"{kind}-{side}.safetensors"

    def _base_digest(self, kind: str, side: str) -> str | None:
        digests = self.history[0].get("digests", {}) if self.history else {}
        return digests.get(self._base_path(kind, side).stem)

    @property
    def has_stats(self) -> bool:
        """True where the run kept base statistics, as every run does that scores."""
        return all(self._base_digest("stats", side) or self._base_path("stats", side).exists() for side in SIDES)

    def scores(self, importance: str | None = None, eps: float | None = None) -> Scores:
        """The base model's scores, by default as the run's configuration asks."""
        return score(
            forget=self.stats("forget"),
            retain=self.stats("retain"),
            importance=self.config.importance if importance is None else importance,
            eps=self.config.eps if eps is None else eps,
            sites=list(self.pruned_at),
            head=self.config.head,
            force=self.config.force,
        )

    def drops(self, side: str, metric: str = "top1") -> list[float]:
        """The relative drop of a metric at every step, 1 - value / base value; 0 where the base value is 0.

        Raises:
            DissectError: There is no such side or metric.
        """
        check_name("side", side, SIDES)
        for line in self.history[:1]:
            look_up("metric", metric, line["metrics"][side])
        values = [line["metrics"][side][metric] for line in self.history]
        return [relative_drop(value, values[0]) for value in values]

    def loss_rises(self, side: str) -> list[float]:
        """The mean loss at every step less that of the base model, in nats.

        Raises:
            DissectError: There is no such side.
        """
        check_name("side", side, SIDES)
        losses = [line["metrics"][side]["loss"] for line in self.history]
        return [loss - losses[0] for loss in losses]

    def intervals(self, side: str, name: str = "drop") -> list[Interval]:
        """The 95% interval of a side's `drop` (or `top1`, `top10`, `loss`, `loss_rise`) at every step.

        None where there is none, because the side has too few documents (see `dissect.evaluation.intervals`).

        Raises:
            DissectError: There is no such side, or nothing of that name has an interval.
        """
        check_name("side", side, SIDES)
        check_name("interval", name, NAMES)
        found = [(line.get("intervals", {}).get(side) or {}).get(name) for line in self.history]
        return [None if ends is None else (ends[0], ends[1]) for ends in found]

    def summary(self) -> Summary:
        """The paper's Table 2 figure and the operating points of this run.

        Raises:
            DissectError: It has no step yet.
        """
        if not self.history:
            raise DissectError(f"run {self.path} has no finished step yet; give its command again to go on with it")
        forget, retain = self.drops("forget"), self.drops("retain")
        step = max(range(len(forget)), key=lambda k: forget[k] - retain[k])
        at = {level: drop_at(forget, retain, level) for level in (0.05, 0.20)}
        ends = self.history[step].get("intervals", {}).get("difference")
        return Summary(
            forget[step] - retain[step],
            step,
            forget[step],
            retain[step],
            at,
            interval=None if ends is None else (ends[0], ends[1]),
            forget_interval=self.intervals("forget")[step],
            retain_interval=self.intervals("retain")[step],
        )

    def figure(self, *others: Run, theme: str = "light") -> Figure:
        """The pruning curve beside per-layer specialization, with one step slider for both (`views.dashboard`).

        `others` are drawn into the curve by name.
        """
        from dissect.views import dashboard

        return dashboard(self, *others, theme=theme)

    @property
    def label(self) -> str:
        """A short name for legends: what was pruned and how."""
        config = self.config
        how = config.importance if config.selector == "score" else config.selector
        once = not config.iterative and config.selector == "score"
        ways = {"one-shot": once, "svd": config.svd, "to the mean": config.value == "mean"}
        return " ".join([config.site, how, *(name for name, there in ways.items() if there)])

    def __repr__(self) -> str:
        state = f"step {max(0, len(self.history) - 1)} of {self.config.steps}"
        return f"Run({self.config.model}, {self.label}, {state}, {self.path})"


def _damaged(path: Path, why: object) -> DissectError:
    return DissectError(
        f"{path} is damaged: {why}; put it back from a copy, or delete the folder {path.parent} and run again"
    )


def as_runs(runs: Any) -> list[Run]:
    """The runs of a list or other iterable, which is gone through once.

    Raises:
        DissectError: There is none, one is no run, or one has no step yet.
    """
    if isinstance(runs, Run):
        raise DissectError(f"runs are a list of them, got one, {runs}; put it into a list")
    runs = as_list("runs", runs, "runs, as dissect.Run.load(folder) gives them")
    if not runs:
        raise DissectError("there is no run to show; give at least one run, as in [dissect.Run.load(folder)]")
    for run in runs:
        check_kind("a run", run, Run, "a Run, as dissect.Run.load(folder) gives it")
        if not run.history:
            raise DissectError(f"run {run.path} has no finished step yet; give its command again to go on with it")
    return runs


def open_run(path: Path, config: PruneConfig, *, apart_from: Collection[str] = ()) -> Run | None:
    """The run in folder `path` if there is one, to go on with; fields `apart_from` may differ.

    Raises:
        DissectError: The folder holds a run of another configuration, or other files.
    """
    if not (path / CONFIG).exists():
        if path.exists() and (not path.is_dir() or any(not p.name.startswith(".") for p in path.iterdir())):
            raise DissectError(f"{path} exists and is not a run folder; choose another --out")
        return None
    run = Run.load(path)
    differences = {name: both for name, both in run.config.differences(config).items() if name not in apart_from}
    if differences:
        listed = ", ".join(f"{name} {theirs!r} there, {mine!r} here" for name, (theirs, mine) in differences.items())
        raise DissectError(f"{path} holds a run of another configuration ({listed}); choose another --out")
    return run


def run_bytes(run: Run | None) -> bytes:
    """All that a run holds in memory, its folder apart, for ranks that may not see the folder; nothing for None."""
    if run is None:
        return b""
    pruned_at = {site: at.tolist() for site, at in run.pruned_at.items()}
    return _json_bytes({"record": run.record, "history": run.history, "pruned_at": pruned_at})


def run_of_bytes(path: Path, data: bytes) -> Run | None:
    """What `run_bytes` packed."""
    if not data:
        return None
    parts = json.loads(data)
    pruned_at = {site: torch.tensor(at, dtype=torch.int16) for site, at in parts["pruned_at"].items()}
    return Run(path, PruneConfig(**parts["record"]["config"]), parts["record"], parts["history"], pruned_at)


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def config_record(config: PruneConfig) -> dict[str, Any]:
    """The configuration as JSON values."""
    return dataclasses.asdict(config)
