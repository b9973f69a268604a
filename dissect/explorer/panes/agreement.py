"""Agreement of the value and the pre_out choices by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from plotly import graph_objects as go

from dissect.explorer.agreement import Agreement
from dissect.explorer.panes.pane import LOW, pane_plot, titled
from dissect.style.theme import RUNS, plain
from dissect.style.ticks import layer_ticks

BOTH, ONLY_VALUE, ONLY_PRE_OUT = RUNS[0], RUNS[2], RUNS[3]


class AgreementPane:
    """Pre-out dimensions in the value choice, in the pre-out choice or in both, one bar for each layer."""

    def __init__(self, n_layers: int, theme: str):
        layers = np.arange(n_layers, dtype=np.int32)
        hover = "layer %{x}: %{y:,} dimensions"
        shown = (("both", BOTH), ("value only", ONLY_VALUE), ("pre_out only", ONLY_PRE_OUT))
        bars = [go.Bar(x=layers, y=0 * layers, name=name, marker_color=c, hovertemplate=hover) for name, c in shown]
        figure = go.Figure(bars)
        figure.update_xaxes(title="layer", tickvals=layer_ticks(n_layers), showgrid=False, range=[-1, n_layers])
        figure.update_yaxes(title="pre-out dimensions", rangemode="tozero")
        self.plot = pane_plot(figure, "", "", theme, LOW)
        figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
        self._nothing = 0 * layers

    def show(self, found: Agreement | str) -> None:
        """Draw how far the two agree; a reason why they are not compared is shown instead."""
        if isinstance(found, str):
            self._draw([self._nothing] * 3, "value and pre_out are not compared", _in_lines(found))
            return
        counts = [np.array(part, np.int32) for part in (found.both, found.only_value, found.only_pre_out)]
        note = f"{found.n_both:,} dimensions in both, {found.n_either:,} in either; {unit_of(found)}"
        self._draw(counts, f"Agreement of value and pre_out: Jaccard index {found.jaccard:.2f}", note)

    def _draw(self, counts: Sequence[np.ndarray], title: str, note: str) -> None:
        self.plot.draw({place: {"y": part} for place, part in enumerate(counts)}, titled(title, note))


def unit_of(found: Agreement) -> str:
    """How many pre-out dimensions a value dimension is compared as."""
    return "1 value dim = 1 pre-out dim" if found.group == 1 else f"1 value dim = {found.group} pre-out dims"


def _in_lines(reason: str, width: int = 64) -> str:
    """The reason as plain text in at most two lines."""
    cut = reason.rfind(" ", 0, width) if len(reason) > width else len(reason)
    rest = reason[cut:].strip()
    rest = rest if len(rest) <= width else f"{rest[: rest.rfind(' ', 0, width)]} …"
    return "<br>".join(plain(line) for line in (reason[:cut], rest) if line)
