"""The explorer's controls: ipywidgets that give a `Settings`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import ipywidgets as w

from dissect.backend.sites import get_site
from dissect.base.errors import DissectError, unknown
from dissect.explorer.choice import Settings
from dissect.scoring.importance import meaning_of

# Percent, in steps that grow with the fraction.
_PERCENT = "0.1 0.2 0.3 0.5 0.7 1 1.5 2 2.5 3 4 5 6 7 8 10 12 14 16 18 20 25 30 40 50 60 80 100"
FRACTIONS = tuple(round(float(percent) / 100, 4) for percent in _PERCENT.split())
STRENGTHS = tuple(tenth / 10 for tenth in range(11))
EPSILONS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
STYLE = {"description_width": "84px"}


class Refusing(w.ValueWidget):
    """A widget that refuses what is not among its options with a one-line error, and stays unchanged.

    Attributes:
        refuse: Called with the message, both for code and for the page.
    """

    refuse: Callable[[str], None] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set it from code.

        Raises:
            DissectError: The value is not among the options.
        """
        if error := self._error(name, value):
            if self.refuse:
                self.refuse(str(error))
            raise error
        super().__setattr__(name, value)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the page sends; if it is not among the options, send the page the present state instead."""
        error = next(filter(None, (self._error(name, value) for name, value in sync_data.items())), None)
        if error is None:
            super().set_state(sync_data)
            return
        if self.refuse:
            self.refuse(str(error))
        self.send_state()

    def _error(self: Any, name: str, value: Any) -> DissectError | None:
        if name not in ("value", "label", "index") or getattr(self, "_initializing_traits_", True):
            return None
        known = {
            "value": self._options_values,
            "label": self._options_labels,
            "index": range(len(self._options_labels)),
        }[name]
        what = self.description if name == "value" else f"{name} of {self.description}"
        return None if _is_among(value, known) else unknown(what, value, map(str, known))


def _is_among(value: Any, known: Sequence[Any]) -> bool:
    """True for one of the options, as any numeric type; False for an array or a bool."""
    try:
        return not isinstance(value, bool) and any(bool(value == each) for each in known)
    except (TypeError, ValueError, RuntimeError):  # the last of a tensor that is not one number
        return False


class Dropdown(Refusing, w.Dropdown):
    """A dropdown list that refuses unknown values."""


class Slider(Refusing, w.SelectionSlider):
    """A slider over options that refuses unknown values."""


class Controls:
    """One widget for each field of `Settings`, under its name; choosing a site sets eps to the default of that site."""

    def __init__(self, sites: Sequence[str], importances: Sequence[str], names: Mapping[str, str]):
        pairs = (("forget", "retain"), ("retain", "forget"))
        directions = [(f"prune {names[prune]}, keep {names[keep]}", prune) for prune, keep in pairs]
        self.site = _dropdown("site", sites)
        self.importance = _dropdown("importance", [(f"{name}: {meaning_of(name)}", name) for name in importances])
        self.direction = _dropdown("direction", directions)
        epsilons = sorted({*EPSILONS, *(get_site(site).eps for site in sites)})
        self.fraction = _slider("fraction", [(f"{100 * fraction:g}%", fraction) for fraction in FRACTIONS], 0.02)
        self.eps = _slider("eps", [(f"{eps:g}", eps) for eps in epsilons], get_site(sites[0]).eps)
        self.value = _dropdown("pruned value", [("zero", "zero"), ("mean on the kept side", "mean")])
        self.strength = _slider("strength", [(f"{100 * strength:g}%", strength) for strength in STRENGTHS], 1.0)
        self.site.observe(self._set_eps, names="value")

    @property
    def widgets(self) -> list[Any]:
        """All of them, in order."""
        return [self.site, self.fraction, self.importance, self.eps, self.direction, self.value, self.strength]

    @property
    def settings(self) -> Settings:
        """The present settings."""
        return Settings(**{field.name: getattr(self, field.name).value for field in fields(Settings)})

    def on_refusal(self, call: Callable[[str], None]) -> None:
        """Call a function with the message whenever a control refuses a value."""
        for widget in self.widgets:
            widget.refuse = call

    def on_change(self, call: Callable[[], None]) -> None:
        """Call a function whenever a control changes."""
        for widget in self.widgets:
            widget.observe(lambda change: call(), names="value")

    def enable(self, enabled: bool) -> None:
        """Enable or disable all controls."""
        for widget in self.widgets:
            widget.disabled = not enabled

    def _set_eps(self, change: Any) -> None:
        self.eps.value = get_site(change["new"]).eps


def _dropdown(name: str, options: Sequence[Any]) -> Dropdown:
    return Dropdown(options=options, description=name, style=STYLE, layout={"width": "auto"})


def _slider(name: str, options: Sequence[tuple[str, float]], value: float) -> Slider:
    return Slider(options=options, value=value, description=name, style=STYLE, layout={"width": "auto"})
