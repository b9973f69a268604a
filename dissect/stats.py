"""Sufficient statistics of activations: float64 sums that merge by addition.

Streaming, sharding and one pass over everything are the same path: make statistics of each part and add them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Int64
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dissect.errors import DissectError, unknown
from dissect.ranks import all_reduce_sum_
from dissect.storage import write_bytes

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
        if site not in self.by_site:
            raise unknown("site among those collected", site, self.by_site)
        return self.by_site[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_site)

    def __len__(self) -> int:
        return len(self.by_site)

    def __add__(self, other: Stats) -> Stats:
        if set(self) != set(other):
            raise DissectError(f"cannot add statistics of sites {list(self)} and {list(other)}")
        return Stats({site: stats + other[site] for site, stats in self.items()})

    def save(self, path: str | Path) -> None:
        """Write `to_bytes()` to a file, whole or not at all.

        Raises:
            DissectError: The file cannot be written.
        """
        write_bytes(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """All sums in safetensors' format, as `site/moment` with the counts beside them."""
        tensors = {
            f"{site}/{name}": sums.contiguous().clone()  # head and pre_out share theirs; safetensors does not
            for site, stats in self.items()
            for name, sums in stats.moments.items()
        }
        counts = {f"{site}/count": torch.tensor(stats.count) for site, stats in self.items()}
        return save(tensors | counts)

    @classmethod
    def load(cls, path: str | Path) -> Stats:
        """Read what `save` wrote.

        Raises:
            DissectError: The file is missing, damaged or holds something else.
        """
        try:
            return cls.from_bytes(Path(path).read_bytes())
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise DissectError(f"{path} is not a file of statistics that dissect saved: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Stats:
        """Read what `to_bytes` gave."""
        by_site: dict[str, dict[str, Tensor]] = {}
        for key, value in load(data).items():
            site, name = key.split("/")
            by_site.setdefault(site, {})[name] = value
        return cls({s: UnitStats(int(sums.pop("count")), sums) for s, sums in by_site.items()})


@dataclass
class StatsBuilder:
    """Sums one site's activations as they come by; `finish` gives the frozen `UnitStats`."""

    shape: tuple[int, ...]
    names: tuple[str, ...]
    count: int = 0
    sums: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in MOMENTS:
                raise unknown("moment", name, MOMENTS)
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

    def add_ranks(self) -> None:
        """Add what the other ranks summed, on every rank."""
        self.count = int(all_reduce_sum_(torch.tensor(self.count)))
        for total in self.sums.values():
            all_reduce_sum_(total)

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
    return tuple(MOMENTS) if names is None else tuple(dict.fromkeys(names))
