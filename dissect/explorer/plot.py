"""A Plotly figure as a notebook widget that is changed in place, whatever is on the page by then.

Plotly's FigureWidget draws a view from the state it was made with: what changed since is sent only to views that exist.
So the figure itself is kept beside the widget, and gives a new view its state.
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
    """A figure and, once it is asked for, its widget.

    Attributes:
        figure: What is drawn.
        behind: True where a view that is made now would show an older state.
    """

    def __init__(self, figure: go.Figure):
        self.figure = figure
        self.behind = False
        self._widget: Any = None

    @property
    def widget(self) -> Any:
        """The widget, as wide as its place; made when first asked for."""
        if self._widget is None:
            self._widget = go.FigureWidget(self.figure)
            self._widget._config = CONFIG
        return self._widget

    def draw(self, traces: Mapping[int, Mapping[str, Any]], layout: Mapping[str, Any], *, much: bool = False) -> None:
        """Change some traces, by place, and the layout; `much` where most of it changes, so that views start anew."""
        for figure in (self.figure, self._widget):
            if figure is not None:
                with figure.batch_update():
                    for place, changes in traces.items():
                        figure.data[place].update(changes)
                    figure.update_layout(layout)
        self.behind = True
        if much:
            self.catch_up()

    def ensure(self, place: int, trace: go.Scatter) -> None:
        """Add a trace behind the others, wherever there is none yet at `place`: Ctrl-C may have come between."""
        for figure in (self.figure, self._widget):
            if figure is not None and not figure.data[place:]:
                figure.add_trace(trace)
        self.behind = True

    def catch_up(self) -> None:
        """Let views that are made from now on begin with what is drawn now."""
        if self._widget is not None:
            state = self.figure.to_plotly_json()
            self._widget._widget_data, self._widget._widget_layout = state["data"], state["layout"]
        self.behind = False

    def renew(self) -> Any:
        """Another widget of the same figure, in place of the one before.

        That one is left alone: where its views are gone they still listen, and stumble over what they hear.
        """
        self._widget, self.behind = None, False
        return self.widget


class Page(anywidget.AnyWidget):
    """What the page reports: `shown` counts how often all plots of an explorer were drawn in a new place.

    In the browser it also tells the plots when their room changes, which Plotly hears of only if the window does.
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
