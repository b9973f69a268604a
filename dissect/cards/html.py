"""Cards as HTML: self-contained, no script, in the colours of whatever page they stand on.

All text of data sets and vocabularies goes through jinja2's autoescape.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dissect.backend.units import Unit
from dissect.cards.heads import HeadCard
from dissect.cards.neurons import NeuronCard
from dissect.cards.svg import BarPlot, DensityPlot
from dissect.runs.run import SIDES
from dissect.style.theme import FORGET, NEGATIVE, POSITIVE, RETAIN

SHOWN = {"\n": "↵", "\t": "⇥", "\r": "␍"}
INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control and formatting characters, such as those that turn text around


def card_html(card: NeuronCard | HeadCard) -> str:
    """A card with its style, to stand anywhere in a page."""
    return card_style() + card_body(card)


def card_style() -> str:
    """The style of all cards, needed once a page."""
    return environment().get_template("card_style.html").render(colours={"forget": FORGET, "retain": RETAIN})


def card_body(card: NeuronCard | HeadCard) -> str:
    """A card without its style."""
    if isinstance(card, HeadCard):
        plot = BarPlot(card.forget.distances, card.retain.distances)
        return environment().get_template("head_card.html").render(card=card, sides=SIDES, plot=plot)
    plot = DensityPlot(card.forget.histogram, card.retain.histogram)
    largest = max(abs(end) for side in (card.forget, card.retain) for end in (side.lowest, side.highest))
    template = environment().get_template("neuron_card.html")
    return template.render(card=card, sides=SIDES, plot=plot, largest=largest or 1.0)


@cache
def environment() -> Environment:
    """Templates of this package; everything that is put into them is escaped."""
    found = Environment(
        loader=PackageLoader("dissect.views"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {filter.__name__: filter for filter in (visible, dotted, printed, shade, figure, signed, anchor)}
    return found


def anchor(unit: Unit) -> str:
    """The id of a unit's card in a page."""
    return "-".join(map(str, (unit.site, *unit.place)))


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
