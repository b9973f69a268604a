"""A figure inside a page, with Plotly itself: both compressed, since Plotly alone is 4.8 MB.

The page unpacks them in the browser (`DecompressionStream`, in every browser since 2023); nothing is fetched.
"""

from __future__ import annotations

import base64
import gzip
import json

from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from dissect.views.card import environment

CONFIG = {"displaylogo": False, "responsive": True}


def embedded(figure: Figure, name: str) -> Markup:
    """HTML that draws `figure` wherever it stands in a page, in an element with the id `name`.

    The same figure gives the same text.
    """
    draw = f"Plotly.newPlot({json.dumps(name)}, {{...{figure.to_json()}, config: {json.dumps(CONFIG)}}});"
    packed = gzip.compress(f"{get_plotlyjs()}\n{draw}".encode(), mtime=0)
    template = environment().get_template("figure.html")
    height = figure.to_dict()["layout"]["height"]
    return Markup(template.render(name=name, height=height, packed=base64.b64encode(packed).decode("ascii")))
