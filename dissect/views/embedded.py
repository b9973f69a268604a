"""A figure in a page, together with Plotly; both are compressed, since Plotly alone is 4.8 MB.

The browser unpacks them (`DecompressionStream`, in every browser since 2023); nothing is downloaded.
"""

from __future__ import annotations

import base64
import gzip
import json

from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from dissect.style.html import environment

CONFIG = {"displaylogo": False, "responsive": True}
NOTE = Markup("<noscript>The figure needs JavaScript; the rest of the page does not.</noscript>")


def embedded(figure: Figure, name: str) -> Markup:
    """HTML that draws `figure` at its place in a page, in an element with the id `name`.

    The same figure always gives the same text.
    """
    return Markup(packed_script(f"{get_plotlyjs()}\n{drawing(figure, name)}", figure, name, NOTE))


def embedded_together(figures: dict[str, Figure], *, after: str = "") -> list[Markup]:
    """As `embedded`, for several figures by name: Plotly comes once, with the first. The script `after` ends it."""
    script = "\n".join([get_plotlyjs(), *(drawing(figure, name) for name, figure in figures.items()), after])
    (first, figure), *others = figures.items()
    places = [
        Markup('<div id="{}" style="height: {}px"></div>').format(name, each.to_dict()["layout"]["height"])
        for name, each in others
    ]
    return [Markup(packed_script(script, figure, first, NOTE)), *places]


def drawing(figure: Figure, name: str) -> str:
    """The script that draws a figure in the element `name` and replaces what is there."""
    place = json.dumps(name)
    draw = f"Plotly.newPlot({place}, {{...{figure.to_json()}, config: {json.dumps(CONFIG)}}});"
    return f'document.getElementById({place}).textContent = ""; {draw}'


def packed_script(script: str, figure: Figure, name: str, note: Markup) -> str:
    """HTML of an element `name`, as high as the figure, that shows `note` and runs a compressed script."""
    packed = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode("ascii")
    template = environment("dissect.views").get_template("figure.html")
    return template.render(name=name, height=figure.to_dict()["layout"]["height"], packed=packed, note=note)
