"""What a name or folder would be loaded as, and which sites it has: from its config, without its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dissect.backend.experts import open_experts
from dissect.backend.hooks import hooked
from dissect.backend.sites import SITES, Site, hook_points, listed_layers, partial_layers, sites_of
from dissect.base.checks import is_bridge
from dissect.base.errors import DissectError, summary
from dissect.models.architectures import ARCHITECTURES
from dissect.models.bridged import bridge_of
from dissect.models.convert import empty_model
from dissect.models.source import ModelSource

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """What a model would be loaded as.

    Attributes:
        source: Where it is, and how it would be loaded.
        loads_as: The class.
        n_layers: Its layers.
        sites: Of each site the shape of one layer's units, or why the model has none; those of experts in mixtures.
        layers: The layers that have a site, of those sites that some layers lack.
    """

    source: ModelSource
    loads_as: str
    n_layers: int
    sites: Mapping[str, Shape | str]
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        source = self.source
        of = [f"{name} {value}" for name, value in vars(source.options).items() if name != "bridge" and value]
        flag = " (bridge=True, --bridge)" if source.options.bridge else ""
        head = f"{source.shown_name}: {source.architecture} in {source.location}, loaded as a {self.loads_as}{flag}"
        return "\n".join([", ".join([head, *of]), f"{self.n_layers} layers, each with", *map(self._line, self.sites)])

    def _line(self, site: str) -> str:
        found = self.sites[site]
        where = f", in {listed_layers(self.layers[site])} alone" if site in self.layers else ""
        return f"  {site:<12} {found if isinstance(found, str) else ' x '.join(map(str, found))}{where}"


def describe_model(source: ModelSource) -> Description:
    """A model's class and sites, found by a forward pass through tensors that have shapes and no numbers.

    Raises:
        DissectError: Its config cannot be read, or does not add up.
    """
    from transformers import AutoConfig

    options = {"local_files_only": source.local_only, "revision": source.options.revision}
    try:
        config = AutoConfig.from_pretrained(source.location, **options)
        with without_numbers():
            model = _model(source, config)
            model.skip_layers = source.options.skip_layers
            sites = {name: _shape(model, site) for name, site in SITES.items() if not site.of_experts}
            sites |= _of_experts(model)
            layers = partial_layers(model, sites_of(model))
    except DissectError:
        raise
    except Exception as error:  # whatever transformers and TransformerLens raise of a config that does not add up
        raise DissectError(f"cannot make a model of the config of {source.location!r}: {summary(error)}") from error
    return Description(source, type(model).__name__, model.cfg.n_layers, sites, layers)


@contextmanager
def without_numbers() -> Iterator[None]:
    """Inside the `with` block, tensors have shapes and take no memory.

    They are bfloat16, since torch multiplies the experts of a mixture in no other dtype without looking at them.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


def _model(source: ModelSource, config: Any) -> Any:
    import transformers

    if source.options.bridge:
        hf_model = getattr(transformers, source.architecture)(config)
        return bridge_of(hf_model, source.architecture, name=source.shown_name)
    architecture = ARCHITECTURES[source.architecture]
    fields = architecture.fields(config) | {"device": "cpu", "dtype": torch.bfloat16}
    return empty_model(architecture, fields, name=source.shown_name)


def _of_experts(model: Any) -> dict[str, Shape]:
    """The same of a mixture's experts, from the sizes of their weights; nothing for other models."""
    if not is_bridge(model):
        return {}
    open_experts(model)
    return {name: SITES[name].unit_shape(model.cfg) for name in sites_of(model) if SITES[name].of_experts}


class _Seen(Exception):
    """The activation has been seen."""


def _shape(model: Any, site: Site) -> Shape | str:
    """The shape of one layer's units, as its hook point sees them; or why there are none."""
    found: list[Shape] = []
    try:
        points = hook_points(model, site)
    except DissectError as error:
        return f"none: {error}"

    def see(z: Tensor) -> None:
        found.append(tuple(z.shape[2:]))
        raise _Seen  # what comes after it may look at numbers, as some mixtures do

    with hooked([(next(iter(points.values())), see)]), suppress(_Seen):
        model(torch.zeros(1, 4, dtype=torch.long))
    return found[0][: len(site.unit)] if found else "none: its hook point is not reached by a forward pass"
