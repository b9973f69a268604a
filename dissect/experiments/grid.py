"""What a grid of runs combines, and the paper's own experiments as grids."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from dissect.base.checks import LARGEST, check_fields, check_kind, check_positive, check_whole
from dissect.base.errors import DissectError, look_up, unknown
from dissect.runs.config import PruneConfig, Selector, Value, run_name


@dataclass(frozen=True)
class Grid:
    """What to combine. All other settings are the same for every run.

    Attributes:
        models: Known names, hub ids or local folders.
        forget: Corpora to forget; each goes with the corpus at the same place in `retain`.
        retain: Corpora to retain.
        sites: Where units are pruned; a run each.
        importances: Importance functions; a run each. Random runs do not depend on it, and are made once.
        selectors: score, random, layer-random (matched to the score run with the first importance).
        both_directions: Also swap forget and retain.
        seeds: A run each; of the order of documents and of the random selectors.
        random_seeds: Runs of each random baseline, with seeds from that of the cell on; shown as one, with its spread.
        fraction: As in `PruneConfig`, like all below.
        steps: Number of steps.
        iterative: Collect statistics again at every step, or rank once.
        value: What a pruned unit is set to.
        svd: Rotate attention to its singular basis first.
        tokens: Predictions for statistics, from each corpus.
        eval_tokens: Others for evaluation; as many as for statistics if not given.
        first_position: Statistics also count the first position of each window, as the authors' own code does.
        context: Tokens in a window; fewer for a model of the paper that has fewer positions.
        dtype: bfloat16, float16 or float32.
        device: cpu, cuda, ...
        batch_size: Windows in a forward pass.
    """

    models: tuple[str, ...]
    forget: tuple[str, ...]
    retain: tuple[str, ...]
    sites: tuple[str, ...] = ("mlp", "pre_out")
    importances: tuple[str, ...] = ("abs",)
    selectors: tuple[Selector, ...] = ("score", "random")
    both_directions: bool = False
    seeds: tuple[int, ...] = (0,)
    random_seeds: int = 1
    fraction: float = 0.02
    steps: int = 50
    iterative: bool = True
    value: Value = "zero"
    svd: bool = False
    tokens: int = 100_000
    eval_tokens: int | None = None
    first_position: bool = False
    context: int = 512
    dtype: str | None = None
    device: str | None = None
    batch_size: int | None = None

    def check(self) -> None:
        """Raise `DissectError` for a field of another type; names and numbers are checked run by run."""
        check_fields(self)
        for selector in self.selectors:
            if selector not in get_args(Selector):
                raise unknown("selector", selector, get_args(Selector))
        if "layer-random" in self.selectors and not self.importances:
            raise DissectError("selector layer-random matches a run that scores; give an importance")

    def pairs(self) -> list[tuple[str, str]]:
        """Every (forget, retain), the swapped ones behind.

        Raises:
            DissectError: There are not as many of the one as of the other.
        """
        if len(self.forget) != len(self.retain) or not self.forget:
            raise DissectError(
                f"forget and retain go in pairs, got {len(self.forget)} and {len(self.retain)}: "
                f"{list(self.forget)} and {list(self.retain)}"
            )
        pairs = list(zip(self.forget, self.retain, strict=True))
        return pairs + [(retain, forget) for forget, retain in pairs] if self.both_directions else pairs

    def cells(self, out: Path) -> list[PruneConfig]:
        """The configuration of every run, model by model, score runs before the random ones that match them.

        Raises:
            DissectError: The data sets do not go in pairs, or `random_seeds` is below 1.
        """
        check_whole("random_seeds", self.random_seeds, 1)
        combinations = itertools.product(self.models, self.pairs(), self.sites, self.seeds)
        return [cell for combination in combinations for cell in self._cells(out, *combination)]

    def _cells(self, out: Path, model: str, pair: tuple[str, str], site: str, seed: int) -> Iterator[PruneConfig]:
        shared = {name.name: getattr(self, name.name) for name in dataclasses.fields(self) if name.name in _SHARED}
        shared["context"] = min(self.context, POSITIONS.get(model, self.context))
        base = PruneConfig(model=model, forget=pair[0], retain=pair[1], site=site, seed=seed, **shared)
        scored = [replace(base, importance=importance) for importance in self.importances]
        if "score" in self.selectors or "layer-random" in self.selectors:
            yield from scored
        drawn = [replace(base, seed=seed + extra) for extra in range(self.random_seeds)]
        if "random" in self.selectors:
            yield from (replace(each, selector="random") for each in drawn)
        if "layer-random" in self.selectors:
            match = str(cell_folder(out, scored[0]))
            yield from (replace(each, selector="layer-random", match=match) for each in drawn)


_SHARED = {field.name for field in dataclasses.fields(PruneConfig)} & {field.name for field in dataclasses.fields(Grid)}
_SHARED -= {"forget", "retain"}


POSITIONS = {"roberta-base": 512, "roberta-large": 512}


def all_cells(grids: Grid | Sequence[Grid], out: Path) -> list[PruneConfig]:
    """The configurations of one or several grids, each once."""
    grids = [grids] if isinstance(grids, Grid) else grids
    return list(dict.fromkeys(cell for grid in grids for cell in grid.cells(out)))


def cell_folder(out: Path, cell: PruneConfig) -> Path:
    """The run folder of a cell below the grid's folder."""
    return out / run_name(cell)


@dataclass(frozen=True)
class Cluster:
    """Where a grid's runs go with Ray, and what each asks for.

    Attributes:
        address: Of a Ray cluster (`auto`, `host:port`, `ray://...`); None for the one that $RAY_ADDRESS names, or for
            the cores and GPUs of this machine.
        cpus_per_run: Cores that a run takes.
        gpus_per_run: GPUs, or a part of one; None for one where the cluster has any, else none.
    """

    address: str | None = None
    cpus_per_run: float = 1.0
    gpus_per_run: float | None = None

    def check(self) -> None:
        """Raise `DissectError` for a value that no run can ask for."""
        check_fields(self)
        check_positive("cpus_per_run", self.cpus_per_run)
        gpus = self.gpus_per_run
        if gpus is not None and not (0 <= gpus <= 1 or (1 < gpus < LARGEST and gpus == int(gpus))):
            raise DissectError(f"gpus_per_run must be a part of a GPU (0 to 1) or a whole number of them, got {gpus}")


Experiment = Literal["fig1", "fig2", "fig3", "table2", "claims"]

PAPER_MODELS = (
    "opt-125m",
    "opt-1.3b",
    "opt-6.7b",
    "galactica-125m",
    "galactica-1.3b",
    "galactica-6.7b",
    "pythia-160m",
    "pythia-1.4b",
    "pythia-6.9b",
    "roberta-base",
    "roberta-large",
)

# (forget, retain), each taken in both directions. The Pile is without GitHub, since code is the other side.
PAPER_PAIRS = (("code", "pile"), ("python", "code"))
OFFLINE_PAIRS = (("python-stdlib", "wiki-en"), ("torch-headers", "python-stdlib"))

BOTH_SELECTORS: tuple[Selector, ...] = ("score", "random")


def paper_grids(
    what: Experiment,
    models: tuple[str, ...] = PAPER_MODELS,
    *,
    tokens: int = 100_000,
    steps: int = 50,
    first_position: bool = False,
    context: int = 1_000,
    offline: bool = False,
) -> list[Grid]:
    """The grids behind a figure, a table, or all of the paper's claims; by default at its settings.

    Those are 50 steps of 2%, iterative, 100,000 predictions, windows of 1,000 tokens, both pairs of data sets in
    both directions. `offline` takes pairs that need no hub. The authors' own code also counts `first_position`.

    Raises:
        DissectError: No such experiment, or a value of another type.
    """
    of_figure = look_up("experiment", what, _GRIDS)
    check_whole("tokens", tokens, 1)  # here, since a part of them is taken
    check_kind("offline", offline, bool, "True or False")
    forget, retain = zip(*(OFFLINE_PAIRS if offline else PAPER_PAIRS), strict=True)
    everything = Grid(
        models,
        forget,
        retain,
        both_directions=True,
        tokens=tokens,
        steps=steps,
        first_position=first_position,
        context=context,
    )
    everything.check()
    return of_figure(everything)


def _figure_1(everything: Grid) -> list[Grid]:
    return [replace(everything, sites=("mlp", "pre_out"), selectors=BOTH_SELECTORS)]


def _figure_3(everything: Grid) -> list[Grid]:
    """Every importance at every site; `freq` where an activation function maps negatives to zero."""
    sites, importances = ("mlp", "value", "pre_out", "head"), ("abs", "rms", "std", "sqrt")
    return [
        replace(everything, sites=sites, importances=importances, selectors=BOTH_SELECTORS),
        replace(everything, sites=("mlp",), importances=("freq",), selectors=("score",)),
    ]


def _table_2(everything: Grid) -> list[Grid]:
    return [replace(everything, sites=("mlp", "pre_out"), selectors=("score",))]


def _claims(everything: Grid) -> list[Grid]:
    """Every run that one of `dissect.experiments.claims.CLAIMS` compares: Figure 1's, and others of the first pair."""
    first = replace(
        everything,
        forget=everything.forget[:1],
        retain=everything.retain[:1],
        both_directions=False,
        selectors=("score",),
    )
    total = everything.tokens
    return [
        *_figure_1(everything),
        replace(first, sites=("mlp", "value", "pre_out", "head"), selectors=BOTH_SELECTORS),
        replace(first, sites=("mlp",), importances=("freq", "rms", "std", "sqrt")),
        replace(first, sites=("pre_out",), importances=("rms", "std", "sqrt")),
        replace(first, sites=("mlp", "pre_out"), iterative=False),
        replace(first, sites=("value", "pre_out"), svd=True),
        *(replace(first, sites=("mlp",), tokens=max(1, total // part), eval_tokens=total) for part in FEWER),
    ]


FEWER = (5, 20)  # statistics from a part of the predictions, to see what more of them are worth

_GRIDS: dict[str, Callable[[Grid], list[Grid]]] = {
    "fig1": _figure_1,
    "fig2": _figure_1,  # two views of the same runs
    "fig3": _figure_3,
    "table2": _table_2,
    "claims": _claims,
}
