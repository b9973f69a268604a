"""HTML from templates; all text that is put into them is escaped."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dissect.style.theme import NEGATIVE, POSITIVE

SHOWN = {"\n": "↵", "\t": "⇥", "\r": "␍"}
INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control and formatting characters, such as right-to-left marks


@cache
def environment(package: str | None = None) -> Environment:
    """The templates in the folder `templates` of a package, with the filters below and autoescape."""
    found = Environment(
        loader=None if package is None else PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {filter.__name__: filter for filter in (visible, dotted, printed, shade, figure, signed)}
    return found


def visible(text: str) -> str:
    """Text with visible line ends, tabs, invisible characters, and double spaces."""
    seen = "".join(_seen(char) for char in text)
    return seen.replace("  ", "··") if "  " in seen else seen


def dotted(text: str) -> str:
    """As `visible`, for a single token: every space is a dot."""
    return visible(text).replace(" ", "·")


def printed(text: str) -> str:
    """Text that keeps its line ends and spaces, with invisible characters made visible."""
    return " ".join(visible(part) for part in text.split(" ")).replace("↵", "↵\n")


def _seen(char: str) -> str:
    if char in SHOWN:
        return SHOWN[char]
    return f"\\u{ord(char):04x}" if unicodedata.category(char) in INVISIBLE else char


def shade(activation: float, largest: float) -> str:
    """The background of a token as CSS: green above zero, purple below, stronger for larger activations."""
    strength = min(1.0, abs(activation) / largest)
    return (
        f"background:rgba({POSITIVE if activation > 0 else NEGATIVE}, {0.85 * strength:.2f})" if strength > 0.02 else ""
    )


def figure(value: float) -> str:
    """A number with three significant digits and a true minus sign."""
    return f"{value:.3g}".replace("-", "−")


def signed(value: Any) -> str:
    """As `figure`, but always with a sign."""
    return f"{value:+.3g}".replace("-", "−")
