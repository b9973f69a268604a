"""The explorer's four plots, side by side. They compute no result, and send to the page only what changes.

Moving the fraction sends the chosen units, not all of them. Long arrays are one-dimensional: those travel to the
browser as binary data, others as text.
"""

from __future__ import annotations

from typing import Any

from dissect.explorer.agreement import Agreement
from dissect.explorer.board import columns
from dissect.explorer.choice import Choice
from dissect.explorer.panes.agreement import AgreementPane
from dissect.explorer.panes.curve import CurvePane
from dissect.explorer.panes.importance import ImportancePane
from dissect.explorer.panes.layers import LayersPane
from dissect.explorer.panes.plot import Page


class Panes:
    """The plots, and the widgets that show them.

    Attributes:
        importance, layers, agreement, curve: The panes, one a plot.
        plots: Their plots.
        columns: The widget that shows them side by side.
        page: The widget through which the page reports that they are drawn.
    """

    def __init__(self, n_layers: int, theme: str):
        self.importance, self.layers = ImportancePane(theme), LayersPane(n_layers, theme)
        self.agreement, self.curve = AgreementPane(n_layers, theme), CurvePane(theme)
        self.plots = [pane.plot for pane in (self.importance, self.layers, self.agreement, self.curve)]
        self.columns = columns([], 400)
        self.page = Page(plots=len(self.plots))
        self.page.observe(lambda change: self._refresh(), names="shown")

    def show(self, choice: Choice, agreement: Agreement | str) -> None:
        """Draw a choice, and how far value and pre_out agree, or why they are not compared."""
        self.importance.show(choice)
        self.layers.show(choice)
        self.agreement.show(agreement)

    def renew(self) -> None:
        """Put new widgets in place of the present ones, for another view of the explorer."""
        self.columns.children = [plot.renew() for plot in self.plots]

    def catch_up(self) -> None:
        """Let the next view start from what is drawn now."""
        for plot in self.plots:
            plot.catch_up()

    def _refresh(self) -> None:
        """Draw again if something changed between sending a view to the page and its being drawn there."""
        if any(plot.stale for plot in self.plots):
            self.renew()

    @property
    def widgets(self) -> list[Any]:
        """The widgets, in order."""
        return [self.columns, self.page]
