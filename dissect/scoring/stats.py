"""Sufficient statistics of activations: float64 sums that merge by addition.

Streaming, sharding and one pass over everything are the same path: make statistics of each part and add them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Int64
from safetensors.torch import save
from torch import Tensor

from dissect.backend.routing import Routing
from dissect.backend.sites import get_site
from dissect.base.checks import as_list, as_path, check_kind
from dissect.base.errors import DissectError, look_up, shown
from dissect.base.ranks import all_reduce_sum_, shareable
from dissect.base.storage import read_tensors, tensors_of, with_folder, write_bytes

Activations = Float[Tensor, "window position *unit"]

Moments = dict[str, Callable[[Tensor, Tensor], Tensor]]

# Each sums a function of the activations over positions. It gets float32 (or better), `position *unit`, some at a
# time: torch sums those pairwise, and the parts add up in float64. `scratch` is a buffer of the same shape to write to:
# memory that is new each time costs more than the arithmetic.
SIGNED: Moments = {
    "sum": lambda z, scratch: z.sum(0),
    "sum_sq": lambda z, scratch: torch.mul(z, z, out=scratch).sum(0),
    "positive": lambda z, scratch: torch.gt(z, 0, out=scratch).sum(0),
}
# These get the absolute values of the activations, which are taken once.
ABSOLUTE: Moments = {
    "sum_abs": lambda size, scratch: size.sum(0),
    "sum_sqrt": lambda size, scratch: torch.sqrt(size, out=scratch).sum(0),
}
MOMENTS = SIGNED | ABSOLUTE
NEVER_NEGATIVE = ("sum_sq", "sum_abs", "sum_sqrt", "positive")
NUMBERS = 2**20  # that many activations at a time: enough to be worth a call, few enough for a processor's cache


@dataclass(frozen=True, eq=False)
class UnitStats:
    """Sums over `count` kept positions of functions of one site's activations.

    Attributes:
        count: Number of kept positions, the same for every unit.
        moments: By name of `MOMENTS`, the sum at every unit, float64 `layer *unit`. For site `head` the units
            are those of `pre_out`: scores are averaged over a head later.
    """

    count: int
    moments: Mapping[str, Float64[Tensor, " layer *unit"]]

    def __post_init__(self) -> None:
        if not isinstance(self.moments, Mapping):
            raise DissectError(f"moments must be a dict of tensors by name, got {shown(self.moments)}")
        for name, sums in self.moments.items():
            check_kind(f"moment {shown(name)}", sums, Tensor, "a tensor")
        # Copies: what the caller does to the originals later must not change the sums.
        object.__setattr__(self, "moments", {name: sums.clone() for name, sums in self.moments.items()})

    def __getitem__(self, moment: str) -> Float64[Tensor, " layer *unit"]:
        if not isinstance(moment, str) or moment not in self.moments:
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


@shareable
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
        """Write `to_bytes()` to a file, whole or not at all.

        Raises:
            DissectError: The file cannot be written.
        """
        write_bytes(with_folder(as_path("path", path)), self.to_bytes())

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
            return cls._of(read_tensors(as_path("path", path).resolve()))
        except DissectError as error:
            raise DissectError(f"{path} is not a file of statistics that dissect saved: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Stats:
        """Read what `to_bytes` gave."""
        return cls._of(tensors_of(data))

    @classmethod
    def _of(cls, tensors: Mapping[str, Tensor]) -> Stats:
        by_site: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            site, _, name = key.partition("/")
            by_site.setdefault(site, {})[name] = value
        return cls({get_site(site).name: _unit_stats(site, sums) for site, sums in by_site.items()})


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
    """Sums one site's activations as they come, and counts them; `finish` gives the frozen `UnitStats`.

    Attributes:
        shape: `layer *unit`.
        names: The moments to sum.
        counts: How many positions were added, of each layer.
        sums: The sums of them, in float64.
    """

    shape: tuple[int, ...]
    names: tuple[str, ...]
    counts: Int64[Tensor, " layer"] = field(init=False)
    sums: Float64[Tensor, "layer moment *unit"] = field(init=False)
    _memory: Tensor = field(init=False, default_factory=lambda: torch.empty(2, 0))

    def __post_init__(self) -> None:
        for name in self.names:
            look_up("moment", name, MOMENTS)
        watching = () if any(_shows_not_finite(name) for name in self.names) else ("sum",)
        self._summed = (*self.names, *watching)
        self.counts = torch.zeros(self.shape[0], dtype=torch.int64)
        self.sums = torch.zeros(self.shape[0], len(self._summed), *self.shape[1:], dtype=torch.float64)

    def update(self, layer: int, z: Activations, units: Int64[Tensor, " unit"] | None = None) -> None:
        """Add the kept activations of one layer.

        With `units` z holds those units alone, and the others were zero everywhere.
        """
        self.counts[layer] += z.shape[0] * z.shape[1]
        self._move_to(z.device)
        total = self.sums[layer]
        if units is not None:
            units = units.to(total.device)  # a model on several GPUs has layers elsewhere
        for part in _parts(z):
            total[:, slice(None) if units is None else units] += self._sums(part)
        if units is not None:
            self._add_zeros(total, z.shape[0] * z.shape[1], units)

    def update_rows(self, layer: int, rows: Float[Tensor, "row unit"], routing: Routing, count: int) -> None:
        """Add the kept rows of one layer's experts, of `count` positions: those that have no row are zero."""
        self.counts[layer] += count
        self._move_to(rows.device)
        total = self.sums[layer]
        zero = self._sums(torch.zeros(1, 1, 1, device=rows.device))[..., None]
        absent = torch.full(total.shape[1:2], count, device=total.device)
        for expert, mine in routing.by_expert(rows):
            absent[expert] -= len(mine)
            for part in _parts(mine[None]):
                total[:, expert] += self._sums(part)
        total += zero * absent[:, None]

    def _sums(self, z: Activations) -> Float64[Tensor, " moment *unit"]:
        wide, scratch = self._wide(z)
        return torch.stack(_moments(self._summed, wide, scratch)).to(self.sums)

    def _wide(self, z: Activations) -> Float[Tensor, "2 flat *unit"]:
        """z in float32 or better, and as much memory beside it, both in memory that the next call uses again."""
        dtype = torch.promote_types(z.dtype, torch.float32)
        if self._memory.shape[1] < z.numel() or (self._memory.dtype, self._memory.device) != (dtype, z.device):
            self._memory = torch.empty(2, z.numel(), dtype=dtype, device=z.device)
        both = self._memory[:, : z.numel()].unflatten(1, z.shape)
        both[0].copy_(z)
        return both.flatten(1, 2)

    def _add_zeros(self, total: Float64[Tensor, "moment all"], count: int, units: Int64[Tensor, " unit"]) -> None:
        """What units that are not among `units` contribute: `count` zeros each (nothing, to every moment there is)."""
        absent = torch.ones(total.shape[1], dtype=torch.bool, device=total.device)
        absent[units] = False
        total[:, absent] += count * self._sums(torch.zeros(1, 1, 1, device=total.device))

    def _move_to(self, device: torch.device) -> None:
        """Sum where the activations are, so that nothing waits for a GPU (Apple's has no float64)."""
        if device.type not in ("cpu", "mps") and self.sums.device.type == "cpu":
            self.sums = self.sums.to(device)

    def add_ranks(self) -> None:
        """Add what the other ranks summed, on every rank."""
        all_reduce_sum_(self.counts)
        all_reduce_sum_(self.sums)

    def layers_not_finite(self) -> list[int]:
        """The layers in which an activation was NaN or infinite (or so large that a sum is), in order."""
        return (~self.sums.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()

    def finish(self) -> UnitStats:
        """The sums so far, on the CPU.

        Raises:
            DissectError: Some layers were read more often than others: their hook point is not passed once a batch.
        """
        counts = self.counts.unique().tolist()
        if len(counts) > 1:
            raise DissectError(
                f"layers were read at {' and '.join(map(str, counts))} positions: the model does not pass a site's "
                "hook point once in every layer, so it has no statistics; collect other sites"
            )
        return UnitStats(counts[0], dict(zip(self.names, self.sums.cpu().unbind(1), strict=False)))


def _parts(z: Activations) -> Iterator[Activations]:
    """z as it is on a GPU; on a CPU in parts of at most about `NUMBERS`."""
    width = max(1, math.prod(z.shape[2:]))
    few = NUMBERS if z.device.type == "cpu" else z.numel() + 1
    for windows in z.split(max(1, few // (width * max(1, z.shape[1])))):
        yield from windows.split(max(1, few // width), 1)


def _moments(
    names: Iterable[str], z: Float[Tensor, " position *unit"], scratch: Tensor
) -> list[Float[Tensor, " *unit"]]:
    """The moments of z, which becomes |z| where one of them is of that."""
    sums = {name: SIGNED[name](z, scratch) for name in names if name in SIGNED}
    absolute = [name for name in names if name in ABSOLUTE]
    if absolute:
        z.abs_()
    sums |= {name: ABSOLUTE[name](z, scratch) for name in absolute}
    return [sums[name] for name in names]


def _shows_not_finite(name: str) -> bool:
    """True for a moment that is not finite itself where one activation is NaN or infinite; `positive` counts it."""
    sums = [
        _moments([name], torch.tensor([[0.0], [bad]]), torch.empty(2, 1)) for bad in (torch.nan, torch.inf, -torch.inf)
    ]
    return not any(total.isfinite().any() for (total,) in sums)


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
