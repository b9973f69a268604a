"""Flags made from the fields of a dataclass, which alone holds their names, types, defaults and help."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from dissect.base.errors import DissectError
from dissect.evidence.relearn_config import RelearnConfig
from dissect.experiments.grid import Cluster, Grid
from dissect.experiments.paper import CONTEXT, OPTIONS
from dissect.runs.config import LOADING, PruneConfig


def flags_of(kind: type, names: Container[str], **defaults: Any) -> Any:
    """The type of a command's parameter whose attributes are the fields `names` of the dataclass `kind`.

    `defaults` replace those of `kind`; `...` makes a flag that must be given.
    """
    types, made = get_type_hints(kind), []
    for each in fields(kind):
        if each.name in names:
            default = defaults.get(each.name, each.default)
            made.append((each.name, types[each.name], field() if default is ... else field(default=default)))
    documented = {"__doc__": kind.__doc__}
    flags = make_dataclass(f"{kind.__name__}Flags", made, namespace=documented, frozen=True, kw_only=True)
    return tyro.conf.arg(name="", constructor=flags)


def _others(kind: type, *names: str) -> list[str]:
    """The fields of a dataclass apart from `names`."""
    return [each.name for each in fields(kind) if each.name not in names]


# What a grid varies, and all other options of a run.
_REQUIRED = dict.fromkeys(("models", "forget", "retain"), ...)
_VARIED = {
    "sites": ("mlp", "pre_out"),
    "importances": (PruneConfig.importance,),
    "selectors": ("score", "random"),
    "seeds": (PruneConfig.seed,),
}
_IN_GRID = ("model", "forget", "retain", "site", "importance", "selector", "seed")
Varied = Annotated[Any, flags_of(Grid, _others(Grid, "base"), **_REQUIRED, **_VARIED)]
NotVaried = Annotated[Any, flags_of(PruneConfig, _others(PruneConfig, *_IN_GRID))]

_READING = ("model", "forget", "retain", "seed", "dtype", "device", "batch_size", *LOADING)
OfLoading = Annotated[Any, flags_of(PruneConfig, LOADING)]
OfStability = Annotated[Any, flags_of(PruneConfig, _READING)]
_READING_ALL = tuple(name for name in _READING if name not in ("forget", "retain"))
_CHOOSING = ("importance", "combine", "eps", "head", "force", "tokens", "eval_tokens", "context")
OfAtlas = Annotated[Any, flags_of(PruneConfig, (*_READING_ALL, *_CHOOSING), tokens=20_000, context=256)]
_TUNED = (*_READING, "tokens", "eval_tokens", "context")
OfTune = Annotated[Any, flags_of(PruneConfig, _TUNED, tokens=20_000, context=256)]
OfPaper = Annotated[Any, flags_of(PruneConfig, OPTIONS, context=CONTEXT)]
OfCost = Annotated[Any, flags_of(PruneConfig, ("tokens", "steps", "context"), context=CONTEXT)]
OfRelearning = Annotated[Any, flags_of(RelearnConfig, _others(RelearnConfig))]
OfRun = Annotated[PruneConfig, tyro.conf.arg(name="")]

_short = tyro.conf.arg(aliases=["-o"])
Out = Annotated[Path, _short]
OutOrDefault = Annotated[Path | None, _short]


@dataclass(frozen=True)
class RayFlags:
    """Runs side by side, with Ray (pip install 'dissect[ray]').

    Attributes:
        ray: Run side by side on this machine, or on the Ray cluster at an address, instead of one by one.
        cpus_per_run: Cores for each run, with --ray.
        gpus_per_run: GPUs for each run, or a fraction of one, with --ray; one where there are any if not given.
    """

    ray: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")] = None
    cpus_per_run: float = 1.0
    gpus_per_run: float | None = None

    def cluster(self) -> Cluster | None:
        """What `run_grid` takes; None without --ray.

        Raises:
            DissectError: More than one address, or numbers that no run can ask for, with --ray or without.
        """
        Cluster(None, self.cpus_per_run, self.gpus_per_run).check()
        if self.ray is None:
            return None
        if len(self.ray) > 1:
            raise DissectError(f"--ray takes one address, got {' '.join(self.ray)}")
        return Cluster(next(iter(self.ray), None), self.cpus_per_run, self.gpus_per_run)


OnRay = Annotated[RayFlags, tyro.conf.arg(name="")]
