"""What the files of a run folder say, checked before it is believed, and sizes before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dissect.backend.sites import get_site
from dissect.base.checks import check_whole
from dissect.base.errors import DissectError, shown
from dissect.runs.config import MOST_STEPS, PruneConfig, parse_sites

SIDES = ("forget", "retain")
SPLITS = ("train", "test")
METRICS = ("top1", "loss", "perplexity")
MOST_UNITS = 1 << 27  # of all sites; large models have some millions


def read_config(record: Mapping[str, Any]) -> tuple[PruneConfig, dict[str, tuple[int, ...]]]:
    """The configuration of a `config.json`, and the shape `layer *unit` of each of its sites.

    Raises:
        DissectError: It is not what dissect writes; nothing was allocated and nothing that it names was looked at.
    """
    fields = _mapping("config", record.get("config"))
    try:
        config = PruneConfig(**fields)
    except TypeError as error:
        raise DissectError(f"its config does not fit this version of dissect: {error}") from error
    config.check()
    sites = parse_sites(config.site, config.fraction)
    model = _mapping("model", record.get("model"))
    for name in ("fingerprint", "dtype"):
        _text(f"model.{name}", model.get(name))
    for name, version in _mapping("versions", record.get("versions")).items():
        _text(f"versions.{name}", version)
    for split, count in _mapping("shared_documents", record.get("shared_documents")).items():
        check_whole(f"shared_documents.{split}", count, 0)
    _mapping("began", record.get("began"))
    data = _mapping("data", record.get("data"))
    for side in SIDES:
        for split, windows in _mapping(f"data.{side}", data.get(side)).items():
            _text(f"data.{side}.{split}.fingerprint", _mapping(f"data.{side}.{split}", windows).get("fingerprint"))
    units = _mapping("model.units", model.get("units"))
    if set(units) != set(sites):
        raise DissectError(f"model.units must be of {', '.join(sites)}, as its config says, got {shown(list(units))}")
    return config, {site: _shape(site, shape) for site, shape in units.items()}


def check_line(line: Mapping[str, Any], units: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `DissectError` unless a line of a `history.jsonl` holds what a step has, of units of these shapes."""
    total = sum(math.prod(shape) for shape in units.values())
    check_whole("step", line.get("step"), 0, MOST_STEPS)
    check_whole("units", line.get("units"), 0, total)
    for name in ("pruned", "seconds"):
        _number(name, line.get(name))
    metrics = _mapping("metrics", line.get("metrics"))
    for side in SIDES:
        of_side = _mapping(f"metrics.{side}", metrics.get(side))
        for name in METRICS:
            _number(f"metrics.{side}.{name}", of_side.get(name), infinite=name == "perplexity")
    _mapping("digests", line.get("digests"))


def _shape(site: str, shape: Any) -> tuple[int, ...]:
    expected = 1 + len(get_site(site).unit)
    if not isinstance(shape, list) or len(shape) != expected:
        raise DissectError(f"model.units.{site} must be {expected} sizes, got {shown(shape)}")
    for size in shape:
        check_whole(f"a size in model.units.{site}", size, 1, MOST_UNITS)
    check_whole(f"the number of units in model.units.{site}", math.prod(shape), 1, MOST_UNITS)
    return tuple(shape)


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DissectError(f"{name} must be a JSON object, got {shown(value)}")
    return value


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise DissectError(f"{name} must be text, got {shown(value)}")


def _number(name: str, value: Any, *, infinite: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or value < 0 or not (infinite or math.isfinite(value)):
        raise DissectError(f"{name} must be a finite number, 0 or more, got {shown(value)}")
