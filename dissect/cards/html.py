"""Cards as HTML: self-contained, no script, in the colours of whatever page they stand on.

All text of data sets and vocabularies goes through jinja2's autoescape.
"""

from __future__ import annotations

from typing import Any

from dissect.runs.run import SIDES
from dissect.style.html import environment
from dissect.style.theme import FORGET, RETAIN


def card_html(card: Any) -> str:
    """A card with its style, to stand anywhere in a page."""
    return card_style() + card_body(card)


def card_style() -> str:
    """The style of all cards, needed once a page."""
    colours = {"forget": FORGET, "retain": RETAIN}
    return environment("dissect.cards").get_template("card_style.html").render(colours=colours)


def card_body(card: Any) -> str:
    """A card without its style; it names its own `template` and the `plot` in it."""
    return environment("dissect.cards").get_template(card.template).render(card=card, sides=SIDES, plot=card.plot)
