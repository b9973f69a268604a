"""Sufficient statistics of activations: float64 sums that merge by addition.

Streaming, sharding and one pass over everything are the same path: make statistics of each part and add them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Int64
from safetensors.torch import save
from torch import Tensor

from dissect.checks import as_list, as_path, check_kind
from dissect.errors import DissectError, look_up, shown
from dissect.sites import get_site
from dissect.storage import read_tensors, write_bytes

Activations = Float[Tensor, "position *unit"]

# Each sums a function of the activations over positions. It gets float32 (or better), a few positions at a time:
# torch sums those pairwise, and the parts add up in float64.
MOMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda z: z.sum(0),
    "sum_sq": lambda z: (z * z).sum(0),
    "sum_abs": lambda z: z.abs().sum(0),
    "sum_sqrt": lambda z: z.abs().sqrt_().sum(0),
    "positive": lambda z: torch.gt(z, 0, out=torch.empty_like(z)).sum(0),  # a bool tensor takes 4 times as long
}
NEVER_NEGATIVE = ("sum_sq", "sum_abs", "sum_sqrt", "positive")
POSITIONS = 256  # that many positions of a layer fit in a processor's cache


@dataclass(frozen=True, eq=False)
class UnitStats:
    """Sums over `count` kept positions of functions of one site's activations.

    Attributes:
        count: Number of kept positions, the same for every unit.
        moments: By name of `MOMENTS`, the sum at every unit, float64 `layer *unit`. For site `head` the units
            are those of `pre_out`: scores are averaged over a head later.
    """

    count: int
    moments: Mapping[str, Float64[Tensor, layer * unit]]

    def __getitem__(self, moment: str) -> Float64[Tensor, layer * unit]:
        if moment not in self.moments:
            raise DissectError(
                f"these statistics hold {', '.join(self.moments)} but not {moment!r}; "
                f"collect them again with moments that include it"
            )
        return self.moments[moment]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape `layer *unit`."""
        return tuple(next(iter(self.moments.values())).shape)

    def __add__(self, other: UnitStats) -> UnitStats:
        """Statistics of both data sets together.

        Raises:
            DissectError: The two are of different models, or hold different moments.
        """
        check_kind("what is added to statistics", other, UnitStats, "statistics of the same site")
        if self.shape != other.shape or set(self.moments) != set(other.moments):
            raise DissectError(
                f"cannot add statistics {list(self.moments)} of shape {self.shape} "
                f"and {list(other.moments)} of shape {other.shape}: collect both from the same model alike"
            )
        sums = {name: value + other.moments[name] for name, value in self.moments.items()}
        return UnitStats(self.count + other.count, sums)


@dataclass(frozen=True, eq=False)
class Stats(Mapping[str, UnitStats]):
    """The statistics of several sites over one data set: `stats["mlp"]`; `stats + stats` merges two parts."""

    by_site: Mapping[str, UnitStats]

    def __getitem__(self, site: str) -> UnitStats:
        return look_up("site among those collected", site, self.by_site)

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_site)

    def __len__(self) -> int:
        return len(self.by_site)

    def __add__(self, other: Stats) -> Stats:
        check_kind("what is added to statistics", other, Stats, "statistics, as dissect.collect(model, windows) gives")
        if set(self) != set(other):
            raise DissectError(f"cannot add statistics of sites {list(self)} and {list(other)}")
        return Stats({site: stats + other[site] for site, stats in self.items()})

    def save(self, path: str | Path) -> None:
        """Write all sums to one safetensors file, whole or not at all, as `site/moment` with the counts beside them.

        Raises:
            DissectError: The file cannot be written.
        """
        tensors = {
            f"{site}/{name}": sums.contiguous().clone()  # head and pre_out share theirs; safetensors does not
            for site, stats in self.items()
            for name, sums in stats.moments.items()
        }
        counts = {f"{site}/count": torch.tensor(stats.count) for site, stats in self.items()}
        write_bytes(as_path("path", path), save(tensors | counts))

    @classmethod
    def load(cls, path: str | Path) -> Stats:
        """Read what `save` wrote.

        Raises:
            DissectError: The file is missing, damaged or holds something else.
        """
        try:
            by_site: dict[str, dict[str, Tensor]] = {}
            for key, value in read_tensors(as_path("path", path).resolve()).items():
                site, _, name = key.partition("/")
                by_site.setdefault(site, {})[name] = value
            return cls({get_site(site).name: _unit_stats(site, sums) for site, sums in by_site.items()})
        except DissectError as error:
            raise DissectError(f"{path} is not a file of statistics that dissect saved: {error}") from error


def _unit_stats(site: str, sums: dict[str, Tensor]) -> UnitStats:
    """What a file holds of a site; whoever wrote it, it is float64 sums of one shape over a number of positions."""
    count = sums.pop("count", None)
    if count is None or count.dtype != torch.int64 or count.ndim or int(count) < 0:
        raise DissectError(f"{site}/count must be a whole number, 0 or more, got {shown(count)}")
    if not sums:
        raise DissectError(f"site {site!r} has no sums")
    for name, total in sums.items():
        look_up("moment", name, MOMENTS)
        if total.dtype != torch.float64 or total.ndim < 2 or total.shape != next(iter(sums.values())).shape:
            raise DissectError(
                f"{site}/{name} must be float64 of the others' shape, got {total.dtype} {tuple(total.shape)}"
            )
        if name in NEVER_NEGATIVE and bool((total < 0).any()):
            raise DissectError(f"{site}/{name} has a sum below zero")
    return UnitStats(int(count), sums)


@dataclass
class StatsBuilder:
    """Sums one site's activations as they come by; `finish` gives the frozen `UnitStats`."""

    shape: tuple[int, ...]
    names: tuple[str, ...]
    count: int = 0
    sums: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        for name in self.names:
            look_up("moment", name, MOMENTS)
        watching = () if any(_shows_not_finite(name) for name in self.names) else ("sum",)
        self.sums = {name: torch.zeros(self.shape, dtype=torch.float64) for name in (*self.names, *watching)}

    def update(self, layer: int, z: Activations, units: Int64[Tensor, " unit"] | None = None) -> None:
        """Add the kept activations of one layer; `count` is the caller's to raise, once a batch.

        With `units` z holds those units alone, and the others were zero everywhere.
        """
        self._move_to(z.device)
        few = POSITIONS if z.device.type == "cpu" else max(1, len(z))
        where = layer if units is None else (layer, units)
        for part in z.split(few):
            wide = part.to(torch.promote_types(z.dtype, torch.float32))
            for name, total in self.sums.items():
                total[where] += MOMENTS[name](wide).to(total)
        if units is not None:
            self._add_zeros(layer, len(z), units)

    def _add_zeros(self, layer: int, count: int, units: Int64[Tensor, " unit"]) -> None:
        """What units that are not among `units` contribute: `count` zeros each (nothing, to every moment there is)."""
        for name, total in self.sums.items():
            absent = torch.ones(self.shape[1], dtype=torch.bool, device=total.device)
            absent[units] = False
            total[layer, absent] += count * MOMENTS[name](torch.zeros(1, 1)).to(total)

    def _move_to(self, device: torch.device) -> None:
        """Sum where the activations are, so that nothing waits for a GPU (Apple's has no float64)."""
        if device.type not in ("cpu", "mps") and next(iter(self.sums.values())).device.type == "cpu":
            self.sums = {name: total.to(device) for name, total in self.sums.items()}

    def layers_not_finite(self) -> list[int]:
        """The layers in which an activation was NaN or infinite (or so large that a sum is), in order."""
        finite = torch.stack([total.isfinite().flatten(1).all(1) for total in self.sums.values()]).all(0)
        return (~finite).nonzero().flatten().tolist()

    def finish(self) -> UnitStats:
        """The sums so far, on the CPU."""
        return UnitStats(self.count, {name: self.sums[name].cpu() for name in self.names})


def _shows_not_finite(name: str) -> bool:
    """True for a moment that is not finite itself where one activation is NaN or infinite; `positive` counts it."""
    sums = [MOMENTS[name](torch.tensor([[0.0], [bad]])) for bad in (torch.nan, torch.inf, -torch.inf)]
    return not any(total.isfinite().any() for total in sums)


def known_moments(names: Iterable[str] | None) -> tuple[str, ...]:
    """`names` without repeats, or all moments for None."""
    if names is None:
        return tuple(MOMENTS)
    listed = as_list("moments", names, f"names of moments ({', '.join(MOMENTS)})")
    if not listed:
        raise DissectError(f"no moment given; choose from {', '.join(MOMENTS)}")
    for name in listed:
        look_up("moment", name, MOMENTS)
    return tuple(dict.fromkeys(listed))
