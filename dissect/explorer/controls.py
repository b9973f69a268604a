"""The explorer's controls: ipywidgets that stand for a `Settings`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import ipywidgets as w

from dissect.explorer.choice import Settings
from dissect.importance import IMPORTANCE
from dissect.sites import get_site
from dissect.views.scatter import MEANING

PERCENT = (
    0.1,
    0.2,
    0.3,
    0.5,
    0.7,
    1,
    1.5,
    2,
    2.5,
    3,
    4,
    5,
    6,
    7,
    8,
    10,
    12,
    14,
    16,
    18,
    20,
    25,
    30,
    40,
    50,
    60,
    80,
    100,
)
FRACTIONS = tuple(round(percent / 100, 4) for percent in PERCENT)
EPSILONS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
STYLE = {"description_width": "84px"}


class Controls:
    """One widget for each field of `Settings`, by its name; a site brings its own eps when it is chosen."""

    def __init__(self, sites: Sequence[str], names: Mapping[str, str]):
        importances = [(f"{name}: {MEANING.get(name, name)}", name) for name in IMPORTANCE]
        directions = [(f"cut {names[a]}, keep {names[b]}", a) for a, b in (("forget", "retain"), ("retain", "forget"))]
        self.site = _dropdown("site", sites)
        self.importance = _dropdown("importance", importances)
        self.direction = _dropdown("direction", directions)
        epsilons = sorted({*EPSILONS, *(get_site(site).eps for site in sites)})
        self.fraction = _slider("fraction", [(f"{100 * part:g}%", part) for part in FRACTIONS], 0.02)
        self.eps = _slider("eps", [(f"{eps:g}", eps) for eps in epsilons], get_site(sites[0]).eps)
        self.value = _dropdown("pruned to", [("zero", "zero"), ("its mean on the kept side", "mean")])
        self.site.observe(self._bring_eps, names="value")

    @property
    def widgets(self) -> list[Any]:
        """All of them, in order."""
        return [self.site, self.fraction, self.importance, self.eps, self.direction, self.value]

    @property
    def settings(self) -> Settings:
        """Where they stand."""
        return Settings(**{field.name: getattr(self, field.name).value for field in fields(Settings)})

    def on_change(self, call: Callable[[], None]) -> None:
        """Call it whenever one of them moves."""
        for widget in self.widgets:
            widget.observe(lambda change: call(), names="value")

    def enable(self, enabled: bool) -> None:
        """Let them be moved, or not."""
        for widget in self.widgets:
            widget.disabled = not enabled

    def _bring_eps(self, change: Any) -> None:
        self.eps.value = get_site(change["new"]).eps


def _dropdown(name: str, options: Sequence[Any]) -> w.Dropdown:
    return w.Dropdown(options=options, description=name, style=STYLE, layout={"width": "auto"})


def _slider(name: str, options: Sequence[tuple[str, float]], value: float) -> w.SelectionSlider:
    return w.SelectionSlider(options=options, value=value, description=name, style=STYLE, layout={"width": "auto"})
