"""A Plotly figure as a notebook widget that is changed in place, before and after it is shown.

Plotly's FigureWidget draws a view from the state it was made with; later changes are sent only to views that exist.
So the figure is kept beside the widget, and gives a new view its state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anywidget
import traitlets
from plotly import graph_objects as go

CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
}


class Plot:
    """A figure and, when first used, its widget.

    Attributes:
        figure: The figure.
        stale: True where a new view would show an older state.
    """

    def __init__(self, figure: go.Figure):
        self.figure = figure
        self.stale = False
        self._widget: Any = None

    @property
    def widget(self) -> Any:
        """The widget, as wide as its container; made when first used."""
        if self._widget is None:
            self._widget = go.FigureWidget(self.figure)
            self._widget._config = CONFIG
        return self._widget

    def draw(self, traces: Mapping[int, Mapping[str, Any]], layout: Mapping[str, Any], *, much: bool = False) -> None:
        """Change some traces, by index, and the layout; with `much`, new views start from the changed state."""
        for figure in (self.figure, self._widget):
            if figure is not None:
                with figure.batch_update():
                    for place, changes in traces.items():
                        figure.data[place].update(changes)
                    figure.update_layout(layout)
        self.stale = True
        if much:
            self.catch_up()

    def ensure(self, place: int, trace: go.Scatter) -> None:
        """Add a trace unless there is one at index `place`: Ctrl-C may have come between the figure and its widget."""
        for figure in (self.figure, self._widget):
            if figure is not None and not figure.data[place:]:
                figure.add_trace(trace)
        self.stale = True

    def catch_up(self) -> None:
        """Let new views start from the present state."""
        if self._widget is not None:
            state = self.figure.to_plotly_json()
            self._widget._widget_data, self._widget._widget_layout = state["data"], state["layout"]
        self.stale = False

    def renew(self) -> Any:
        """A new widget of the same figure, in place of the old one.

        The old one is not changed again: its removed views would still receive the change, and fail.
        """
        self._widget, self.stale = None, False
        return self.widget


class Page(anywidget.AnyWidget):
    """Reports from the page: `shown` counts how often all plots of an explorer were drawn in a new view.

    In the browser it also tells the plots when their container is resized; Plotly notices only resized windows.
    """

    plots = traitlets.Int(0).tag(sync=True)
    shown = traitlets.Int(0).tag(sync=True)

    _esm = """
    export default {
      render({ model, el }) {
        let watch = null;
        const timer = setInterval(() => {
          const root = el.closest(".dissect-explorer");
          const plots = root ? [...root.querySelectorAll(".js-plotly-plot")] : [];
          if (plots.length < model.get("plots") || !plots.every((plot) => plot._fullLayout)) return;
          clearInterval(timer);
          watch = new ResizeObserver(() => window.dispatchEvent(new Event("resize")));
          watch.observe(root);
          model.set("shown", model.get("shown") + 1);
          model.save_changes();
        }, 100);
        return () => { clearInterval(timer); if (watch) watch.disconnect(); };
      },
    };
    """
