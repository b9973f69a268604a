"""Where units are in a TransformerLens model: the hook point at which a site is read and cut, and its weights.

To add a site, add an entry to `SITES`. Hook names stand in this file alone, so that a port to another model class is
one file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dissect.base.checks import as_list
from dissect.base.errors import DissectError, look_up


@dataclass(frozen=True)
class Site:
    """A family of units: feed-forward neurons, attention value or pre-out neurons, whole heads, experts, their neurons.

    Attributes:
        name: The site's name in `SITES`, masks, statistics and run folders.
        hook: The hook point of one layer; its activation has shape `window position *read` (that of experts' neurons is
            given in rows, see `dissect.backend.experts`).
        read: The dimensions of that activation after `window position`, as names (see `sizes`).
        unit: The dimensions of one layer's units; a prefix of `read`, so a head is cut as all its d_head.
        eps: The paper's default for `score = importance(forget) / (importance(retain) + eps)`.
        signed: True where no activation function maps negatives to zero, so `freq` says little.
        weights: Which of a block's weights its units are in, see `dissect.backend.weights.WEIGHTS`; None for a site
            that only hooks can prune.
        gate: The hook point at what the activation function of a layer's neurons gets; None where there is none.
        mixed: True where attention mixes the positions of its activations before they are written.
    """

    name: str
    hook: str
    read: tuple[str, ...]
    unit: tuple[str, ...]
    eps: float
    signed: bool
    weights: str | None = None
    gate: str | None = None
    mixed: bool = False

    @property
    def of_experts(self) -> bool:
        """True for a site of mixtures of experts alone."""
        return self.read[0] == "expert"

    @property
    def is_whole(self) -> bool:
        """True where a unit is a whole head or expert, which writes in many directions."""
        return self.unit[-1] in ("head", "expert")

    @property
    def is_neuron(self) -> bool:
        """True where a unit is one number of the activation, False for whole heads."""
        return self.unit == self.read

    def hook_name(self, layer: int) -> str:
        """The full name of the hook point in `layer`, e.g. `blocks.3.mlp.hook_post`."""
        return self.hook.format(layer=layer)

    def output_name(self, layer: int) -> str:
        """The full name of the hook point at what the site's part of a block gives out, where the model has one."""
        return f"{self.hook_name(layer).rpartition('.')[0]}.hook_out"

    def unit_shape(self, cfg: Any) -> tuple[int, ...]:
        """The shape of one layer's units in a model with TransformerLens configuration `cfg`."""
        return self._shape(cfg, self.unit)

    def read_shape(self, cfg: Any) -> tuple[int, ...]:
        """The shape of one position's activation at the hook point."""
        return self._shape(cfg, self.read)

    def mask_shape(self, cfg: Any) -> tuple[int, ...]:
        """The shape `layer *unit` of masks, scores and statistics of this site."""
        return (cfg.n_layers, *self.unit_shape(cfg))

    def _shape(self, cfg: Any, names: tuple[str, ...]) -> tuple[int, ...]:
        found = sizes(cfg)
        if missing := [name for name in names if name not in found]:
            raise DissectError(
                f"site {self.name!r} has no {missing[0]!r} in {cfg.model_name!r}: it is for mixtures of experts alone"
            )
        return tuple(found[name] for name in names)


def sizes(cfg: Any) -> dict[str, int]:
    """The sizes that sites are made of; those of experts only in a mixture that `open_experts` got."""
    heads = {"d_head": cfg.d_head, "head": cfg.n_heads, "value_head": n_value_heads(cfg)}
    experts = {"expert": cfg.num_experts, "d_expert": cfg.d_expert} if hasattr(cfg, "d_expert") else {}
    return {"d_model": cfg.d_model, "d_mlp": cfg.d_mlp, **heads, **experts}


def n_value_heads(cfg: Any) -> int:
    """Value heads of a layer: as many as query heads, or fewer that each serve a group of them."""
    if cfg.n_key_value_heads is None or getattr(cfg, "ungroup_grouped_query_attention", False):
        return cfg.n_heads
    return cfg.n_key_value_heads


MLP_PRE, MLP_POST, VALUE, Z = (
    "blocks.{layer}.mlp.hook_pre",
    "blocks.{layer}.mlp.hook_post",
    "blocks.{layer}.attn.hook_v",
    "blocks.{layer}.attn.hook_z",
)

EXPERT, EXPERT_MLP = "blocks.{layer}.hook_expert", "blocks.{layer}.hook_expert_mlp"  # see dissect.backend.experts

RESIDUAL = "blocks.{layer}.hook_resid_post"  # what a layer leaves, `window position d_model`; not a site
PATTERN = "blocks.{layer}.attn.hook_pattern"  # where heads look, `window head position key`; not a site

USE_EXPERTS = "; use sites 'expert' and 'expert_mlp'"

SITES: dict[str, Site] = {
    "mlp": Site(
        "mlp",
        MLP_POST,
        read=("d_mlp",),
        unit=("d_mlp",),
        eps=1e-3,
        signed=False,
        weights="feed_forward",
        gate=MLP_PRE,
    ),
    "value": Site(
        "value",
        VALUE,
        read=("value_head", "d_head"),
        unit=("value_head", "d_head"),
        eps=1e-4,
        signed=True,
        weights="attention",
        mixed=True,
    ),
    "pre_out": Site(
        "pre_out",
        Z,
        read=("head", "d_head"),
        unit=("head", "d_head"),
        eps=1e-4,
        signed=True,
        weights="attention",
    ),
    "head": Site("head", Z, read=("head", "d_head"), unit=("head",), eps=1e-4, signed=True, weights="attention"),
    # Zero where not routed, so that means are several times smaller than a feed-forward layer's.
    "expert": Site("expert", EXPERT, read=("expert",), unit=("expert",), eps=1e-4, signed=False, weights="expert"),
    "expert_mlp": Site(
        "expert_mlp",
        EXPERT_MLP,
        read=("expert", "d_expert"),
        unit=("expert", "d_expert"),
        eps=1e-4,
        signed=False,
        weights="expert_mlp",
    ),
}


def get_site(name: str) -> Site:
    """The site called `name`.

    Raises:
        DissectError: There is none; the message lists those there are.
    """
    return look_up("site", name, SITES)


def get_sites(names: str | Iterable[str]) -> tuple[Site, ...]:
    """The sites called `names` (one name or several), without repeats, in the order given."""
    listed = [names] if isinstance(names, str) else as_list("sites", names, "names of sites")
    sites = tuple(dict.fromkeys(get_site(name) for name in listed))
    if not sites:
        raise DissectError(f"no site given; choose from {', '.join(SITES)}")
    return sites


def sites_of(model: Any) -> list[str]:
    """The names of the sites that `model` has."""
    return [name for name, site in SITES.items() if _has(model, site)]


def _has(model: Any, site: Site) -> bool:
    try:
        return bool(hook_points(model, site))
    except DissectError:
        return False


def hook_points(model: Any, site: Site) -> dict[int, Any]:
    """The site's hook points in `model` by layer: one in each, or in those that have it if `model.skip_layers`.

    Raises:
        DissectError: The model has no such hook point in some layers (TransformerLens would silently skip it) that it
            was not loaded to skip, or in no layer; another activation has its name there; or `load_model` found that
            cutting at it is not cutting in the weights.
    """
    points, lacking = _points(model, site)
    if lacking and not (points and skips_layers(model)):
        raise DissectError(next(iter(lacking.values())) + _remedy(list(points)))
    if reason := getattr(model, "refused_sites", {}).get(site.name):
        raise DissectError(f"site {site.name!r} of {model.cfg.model_name!r} cannot be used: {reason}")
    return points


def hook_point(model: Any, site: Site, layer: int) -> Any:
    """The site's hook point in one layer.

    Raises:
        DissectError: As `hook_points`, or that layer lacks the site.
    """
    points = hook_points(model, site)
    if layer not in points:
        raise DissectError(
            f"layer {layer} of {model.cfg.model_name!r} has no site {site.name!r}, only {listed_layers(list(points))}"
        )
    return points[layer]


def layers_having(model: Any, site: Site) -> list[int]:
    """The layers that have the site's hook point, whether or not the model skips the others."""
    return list(_points(model, site)[0])


def skips_layers(model: Any) -> bool:
    """True where a site may be in some layers only: the others are skipped."""
    return getattr(model, "skip_layers", False)


def partial_layers(model: Any, sites: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The layers that have a site, by name, of those sites that some layers of a model that skips layers lack."""
    if not skips_layers(model):
        return {}
    found = {site: tuple(hook_points(model, get_site(site))) for site in sites}
    return {name: layers for name, layers in found.items() if len(layers) < model.cfg.n_layers}


def count_units(model: Any, site: Site) -> int:
    """How many units there are of a site, in all layers that have it together.

    Raises:
        DissectError: As `hook_points`, of a model that skips layers.
    """
    layers = len(hook_points(model, site)) if skips_layers(model) else model.cfg.n_layers
    return layers * math.prod(site.unit_shape(model.cfg))


def _points(model: Any, site: Site) -> tuple[dict[int, Any], dict[int, str]]:
    """The site's hook points in the layers that have it, and why each of the others has not."""
    named = model.hook_dict  # a bridge makes it anew at every access
    layers = range(model.cfg.n_layers)
    missing = [layer for layer in layers if site.hook_name(layer) not in named]
    points = {layer: named[site.hook_name(layer)] for layer in layers if layer not in missing}
    outputs = [layer for layer, point in points.items() if point is named.get(site.output_name(layer))]
    found, lacking = {layer: point for layer, point in points.items() if layer not in outputs}, {}
    if missing:
        lacking |= dict.fromkeys(
            missing,
            f"site {site.name!r} needs hook point {site.hook_name(missing[0])!r}, which {model.cfg.model_name!r} does "
            f"not have in {listed_layers(missing)} ({_why_missing(site)})",
        )
    if outputs:
        lacking |= dict.fromkeys(
            outputs,
            f"site {site.name!r} is not in {listed_layers(outputs)} of {model.cfg.model_name!r}, mixtures of experts: "
            f"{site.hook_name(outputs[0])!r} is their output there, not the activations of neurons"
            + (USE_EXPERTS if EXPERT.format(layer=outputs[0]) in named else ""),
        )
    return found, lacking


def _remedy(layers: list[int]) -> str:
    if not layers:
        return ""
    return f"; to use it in {listed_layers(layers)} alone, load the model with skip_layers=True (--skip-layers)"


def gate_points(model: Any, site: Site) -> dict[int, Any]:
    """The hook points at what the activation function of the site's neurons gets, by layer, as `hook_points`.

    Raises:
        DissectError: The site has no activation function, or the model no such hook point.
    """
    layers = hook_points(model, site)  # raises where the model lacks the site
    names = {} if site.gate is None else {layer: site.gate.format(layer=layer) for layer in layers}
    named = model.hook_dict
    if not names or any(name not in named for name in names.values()):
        raise DissectError(
            f"site {site.name!r} of {model.cfg.model_name!r} has no gate (the input of an activation function); "
            "take another moment or importance, or site 'mlp'"
        )
    return {layer: named[name] for layer, name in names.items()}


def _why_missing(site: Site) -> str:
    if site.of_experts:
        return "it is of mixtures of experts, loaded as a bridge: bridge=True"
    return "a mixture of experts has no single feed-forward layer, a layer without attention no heads"


def listed_layers(layers: Sequence[int]) -> str:
    """Layers as text: `layer 3`, `layers 0 to 5`, `layers 1, 3`."""
    if len(layers) > 1 and layers[-1] - layers[0] == len(layers) - 1:
        return f"layers {layers[0]} to {layers[-1]}"
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
