"""What a grid of runs combines, and the paper's own experiments as grids."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from dissect.base.checks import LARGEST, check_fields, check_positive, check_whole
from dissect.base.errors import DissectError, unknown
from dissect.base.options import Selector, Value
from dissect.runs.config import PruneConfig, run_name


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
