"""HTML made of templates, and text that is shown in it: whatever is put in is escaped."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dissect.style.theme import NEGATIVE, POSITIVE

SHOWN = {"\n": "↵", "\t": "⇥", "\r": "␍"}
INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control and formatting characters, such as those that turn text around


@cache
def environment(package: str | None = None) -> Environment:
    """The templates in the folder `templates` of a package, and the filters below; everything is escaped."""
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
    """Text in which line ends, tabs and characters without a shape can be seen, and so can runs of spaces."""
    seen = "".join(_seen(char) for char in text)
    return seen.replace("  ", "··") if "  " in seen else seen


def dotted(text: str) -> str:
    """As `visible`, for a token by itself: every space is a dot."""
    return visible(text).replace(" ", "·")


def printed(text: str) -> str:
    """Text with its line ends and spaces, and whatever else has no shape made visible."""
    return " ".join(visible(part) for part in text.split(" ")).replace("↵", "↵\n")


def _seen(char: str) -> str:
    if char in SHOWN:
        return SHOWN[char]
    return f"\\u{ord(char):04x}" if unicodedata.category(char) in INVISIBLE else char


def shade(activation: float, largest: float) -> str:
    """The background of a token: green above zero, purple below, the stronger the more active."""
    part = min(1.0, abs(activation) / largest)
    return f"background:rgba({POSITIVE if activation > 0 else NEGATIVE}, {0.85 * part:.2f})" if part > 0.02 else ""


def figure(value: float) -> str:
    """A number in three digits, with a true minus."""
    return f"{value:.3g}".replace("-", "−")


def signed(value: Any) -> str:
    """As `figure`, always with a sign."""
    return f"{value:+.3g}".replace("-", "−")
