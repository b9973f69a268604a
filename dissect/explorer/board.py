"""The layout of the explorer's parts."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

from dissect.explorer.controls import Controls

BESIDE = {"width": "100%", "grid_gap": "4px 16px"}


def columns(parts: list[Any], least: int) -> w.GridBox:
    """Side by side in columns of equal width, or below each other where a column would be under `least` pixels wide."""
    tracks = f"repeat(auto-fit, minmax(min(100%, {least}px), 1fr))"
    return w.GridBox(parts, layout=BESIDE | {"grid_template_columns": tracks})


class Actions:
    """The buttons, the prompt, the progress bar and the message.

    Attributes:
        measure: The button that measures the choice.
        prompt: The prompt for *Try it*.
        try_it: The button that continues it.
        bar: Progress of the running action.
        message: An error, or the result of the last action.
        unpruned, pruned, key: The last trial: both texts, and what the shades mean.
    """

    def __init__(self, cannot_try: str):
        self.measure = w.Button(description="Measure", button_style="primary", tooltip="Evaluate the pruned model")
        self.bar = w.FloatProgress(min=0, max=1, layout={"width": "220px", "visibility": "hidden"})
        self.message = w.HTML()
        self.prompt = w.Textarea(placeholder="A prompt to continue", rows=3, layout={"width": "100%"})
        self.try_it = w.Button(description="Try it", tooltip=cannot_try or "Continue the prompt, unpruned and pruned")
        self.unpruned, self.pruned, self.key = w.HTML(), w.HTML(), w.HTML()
        self.can_try = not cannot_try
        if cannot_try:
            self.prompt.placeholder = cannot_try
            self.prompt.disabled = self.try_it.disabled = True

    def enable(self, enabled: bool, chosen: bool) -> None:
        """Enable or disable the buttons; those that need a choice are enabled only if there is one."""
        self.measure.disabled = not (enabled and chosen)
        self.try_it.disabled = not (enabled and chosen and self.can_try)
        self.bar.layout.visibility = "hidden" if enabled else "visible"


def board(controls: Controls, plots: list[Any], actions: Actions, about: list[Any], style: str) -> w.VBox:
    """The explorer as one widget: controls, the lines `about` below them, plots and actions; `style` is HTML."""
    rows = [
        w.HTML(style),
        columns(controls.widgets, 330),
        *about,
        w.HBox([actions.measure, actions.bar], layout={"align_items": "center", "margin": "4px 0"}),
        actions.message,
        *plots,
        actions.prompt,
        actions.try_it,
        actions.key,
        columns([actions.unpruned, actions.pruned], 330),
    ]
    explorer = w.VBox(rows, layout={"width": "100%"})
    explorer.add_class("dissect-explorer")
    return explorer
