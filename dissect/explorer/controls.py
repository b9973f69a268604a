"""The explorer's controls: each holds one of its options, whoever sets it, and refuses everything else.

They follow the names of ipywidgets (`value`, `label`, `index`, `options`, `observe`), and need no front end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from dissect.backend.sites import get_site
from dissect.base.errors import shown, unknown
from dissect.explorer.choice import Settings
from dissect.scoring.importance import meaning_of

# Percent, in steps that grow with the fraction.
_PERCENT = "0.1 0.2 0.3 0.5 0.7 1 1.5 2 2.5 3 4 5 6 7 8 10 12 14 16 18 20 25 30 40 50 60 80 100"
FRACTIONS = tuple(round(float(percent) / 100, 4) for percent in _PERCENT.split())
STRENGTHS = tuple(tenth / 10 for tenth in range(11))
EPSILONS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)


class Control:
    """One of several options; set its `value`, `label` or `index`.

    Attributes:
        description: Its name.
        options: The options, as values or as `(label, value)` pairs.
        is_slider: True where they have an order, and a page shows a slider.
    """

    def __init__(self, description: str, options: Iterable[Any], value: Any = None, *, is_slider: bool = False):
        self.description, self.options, self.is_slider = description, tuple(options), is_slider
        pairs = [option if isinstance(option, tuple) else (str(option), option) for option in self.options]
        self._labels, self._values = [label for label, _ in pairs], [value for _, value in pairs]
        self._index = 0 if value is None else self._values.index(value)
        self._calls: list[Callable[[dict[str, Any]], None]] = []
        self._refused: Callable[[str], None] = lambda message: None

    @property
    def value(self) -> Any:
        """The option that is chosen. Setting it raises `DissectError` for what is not among the options."""
        return self._values[self._index]

    @value.setter
    def value(self, value: Any) -> None:
        self._choose(self._place("value", value, self._values))

    @property
    def label(self) -> str:
        """Its label."""
        return self._labels[self._index]

    @label.setter
    def label(self, label: Any) -> None:
        self._choose(self._place("label", label, self._labels))

    @property
    def labels(self) -> list[str]:
        """The labels of all options."""
        return list(self._labels)

    @property
    def values(self) -> list[Any]:
        """The values of all options."""
        return list(self._values)

    @property
    def index(self) -> int:
        """Its place among the options."""
        return self._index

    @index.setter
    def index(self, index: Any) -> None:
        self._choose(self._place("index", index, range(len(self._values))))

    def observe(self, call: Callable[[dict[str, Any]], None], names: Any = "value") -> None:
        """Call a function with `{"name": "value", "old": ..., "new": ..., "owner": ...}` at every change."""
        self._calls.append(call)

    def unobserve(self, call: Callable[[dict[str, Any]], None], names: Any = "value") -> None:
        """Call it no more."""
        self._calls.remove(call)

    def on_refusal(self, call: Callable[[str], None]) -> None:
        """Call a function with the message whenever a value is refused."""
        self._refused = call

    def _choose(self, index: int) -> None:
        if index == self._index:
            return
        old, self._index = self.value, index
        for call in list(self._calls):
            call({"name": "value", "old": old, "new": self.value, "owner": self, "type": "change"})

    def _place(self, name: str, wanted: Any, known: Sequence[Any]) -> int:
        for place, option in enumerate(known):
            if _same(wanted, option):
                return place
        what = self.description if name == "value" else f"{name} of {self.description}"
        error = unknown(what, wanted, map(str, known))
        self._refused(str(error))
        raise error

    def __repr__(self) -> str:
        return f"Control({self.description}: {shown(self.value)})"


def _same(wanted: Any, option: Any) -> bool:
    """True for an option as any numeric type; False for an array or a bool."""
    try:
        return not isinstance(wanted, bool) and bool(wanted == option)
    except (TypeError, ValueError, RuntimeError):  # the last of a tensor that is not one number
        return False


class Controls:
    """One control for each field of `Settings`, by its name; choosing a site sets eps to the default of that site."""

    def __init__(self, sites: Sequence[str], importances: Sequence[str], names: Mapping[str, str]):
        pairs = (("forget", "retain"), ("retain", "forget"))
        directions = [(f"prune {names[prune]}, keep {names[keep]}", prune) for prune, keep in pairs]
        epsilons = sorted({*EPSILONS, *(get_site(site).eps for site in sites)})
        self.by_name: dict[str, Control] = {
            "site": Control("site", sites),
            "fraction": _slider("fraction", [(f"{100 * fraction:g}%", fraction) for fraction in FRACTIONS], 0.02),
            "importance": Control("importance", [(f"{name}: {meaning_of(name)}", name) for name in importances]),
            "eps": _slider("eps", [(f"{eps:g}", eps) for eps in epsilons], get_site(sites[0]).eps),
            "direction": Control("direction", directions),
            "value": Control("pruned value", [("zero", "zero"), ("mean on the kept side", "mean")]),
            "strength": _slider("strength", [(f"{100 * strength:g}%", strength) for strength in STRENGTHS], 1.0),
        }
        self.by_name["site"].observe(self._set_eps)

    @property
    def settings(self) -> Settings:
        """The present settings."""
        return Settings(**{field.name: self.by_name[field.name].value for field in fields(Settings)})

    @property
    def indices(self) -> dict[str, int]:
        """The place of each control among its options."""
        return {name: control.index for name, control in self.by_name.items()}

    def on_change(self, call: Callable[[], None]) -> None:
        """Call a function whenever a control changes."""
        for control in self.by_name.values():
            control.observe(lambda change: call())

    def on_refusal(self, call: Callable[[str], None]) -> None:
        """Call a function with the message whenever a control refuses a value."""
        for control in self.by_name.values():
            control.on_refusal(call)

    def _set_eps(self, change: dict[str, Any]) -> None:
        self.by_name["eps"].value = get_site(change["new"]).eps


def _slider(name: str, options: Sequence[tuple[str, float]], value: float) -> Control:
    return Control(name, options, value, is_slider=True)
