"""An explorer in a notebook: one anywidget, which carries messages between its pages and Python."""

from __future__ import annotations

import anywidget

from dissect.explorer.bundle import page_file, widget_module
from dissect.explorer.desk import Desk


class ExplorerWidget(anywidget.AnyWidget):
    """Shows an explorer in JupyterLab, Notebook 7, VS Code, Colab and marimo; it holds nothing of its own."""

    def __init__(self, desk: Desk):
        self._esm, self._css = widget_module(), page_file("page.css")
        super().__init__()
        desk.link.connect(lambda content, buffers: self.send(content, buffers))
        self.on_msg(lambda widget, content, buffers: desk.receive(content, [bytes(part) for part in buffers]))

    def __repr__(self) -> str:
        return "ExplorerWidget()"
