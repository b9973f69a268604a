"""The explorer: what the controls choose is drawn at once; the buttons run the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any
from uuid import uuid4

from dissect.base.errors import DissectError, shown
from dissect.base.undo import undoing
from dissect.evaluation.continuation import why_not
from dissect.evaluation.intervals import in_brackets
from dissect.explorer.agreement import Agreement, agreement
from dissect.explorer.choice import Choice, Settings, choose, describe
from dissect.explorer.evaluator import Evaluator, Point
from dissect.explorer.trial import Trial, try_prompt
from dissect.scoring.masks import Mask
from dissect.scoring.scores import SiteScores

CONTROLS = tuple(field.name for field in fields(Settings))


class Explorer:
    """A widget for notebooks; everything that it does can also be done from code.

    Attributes:
        site, importance, eps, fraction, value, direction, strength: The controls; set `explorer.fraction.value = 0.05`.
            Choosing a site sets `eps` to the default of that site.
        trials: All trials, in order.
    """

    def __init__(self, evaluator: Evaluator, names: Mapping[str, str], *, about: str, theme: str, new_tokens: int):
        from dissect.explorer import board, controls, texts  # these need the extra `notebook`
        from dissect.explorer.panes import Panes

        self._evaluator, self._new_tokens, self._texts = evaluator, new_tokens, texts
        self._controls = controls.Controls(evaluator.evidence.sites, evaluator.evidence.importances, names)
        self.site, self.fraction, self.importance = (self._controls.widgets[place] for place in (0, 1, 2))
        self.eps, self.direction, self.value, self.strength = self._controls.widgets[3:]
        self.trials: list[Trial] = []
        self._panes = Panes(evaluator.model.cfg.n_layers, theme)
        self._actions = board.Actions(why_not(evaluator.model))
        self._summary = board.w.HTML()
        self._choice: Choice | DissectError = DissectError("nothing is chosen yet")
        self._shown: Settings | None = None
        self._closed = self._displayed = False
        self._refusal = ""
        self._moved()
        self._panes.renew()
        lines = [self._summary, board.w.HTML(texts.paragraph(about, "faint"))]
        self._stand_in = f"dissect-explorer-{uuid4().hex}"
        style = texts.style(theme, self._stand_in)
        self.widget = board.board(self._controls, self._panes.widgets, self._actions, lines, style)
        self._controls.on_change(self._moved)
        self._controls.on_refusal(self._refuse)
        self._actions.measure.on_click(lambda button: self._report(self.measure))
        self._actions.try_it.on_click(lambda button: self._report(self._try))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Raises:
            DissectError: It is a control; set its value instead.
        """
        if name in CONTROLS and name in vars(self):
            raise DissectError(f"{name} is a control; write explorer.{name}.value = {shown(value)}")
        super().__setattr__(name, value)

    @property
    def settings(self) -> Settings:
        """The settings of the controls."""
        return self._controls.settings

    @property
    def choice(self) -> Choice:
        """The units that the controls choose.

        Raises:
            DissectError: They choose nothing; the explorer shows the same message.
        """
        self._moved()
        if isinstance(self._choice, DissectError):
            raise self._choice
        return self._choice

    @property
    def scores(self) -> SiteScores:
        """The scores of the site; their `forget` is the side to prune for."""
        return self.choice.scores

    @property
    def mask(self) -> Mask:
        """The chosen units."""
        return self.choice.mask

    @property
    def agreement(self) -> Agreement:
        """How far the `value` and the `pre_out` choices of these settings agree.

        Raises:
            DissectError: They cannot be compared.
        """
        return agreement(self._evaluator.evidence, self.settings)

    @property
    def points(self) -> list[Point]:
        """All measured points, in order; points of a model that has changed since differ in `Point.contents`."""
        return self._evaluator.points

    @property
    def unpruned(self) -> dict[str, dict[str, float]]:
        """Metrics of the unpruned model by side, as it was when last measured; empty before the first measurement."""
        return self._evaluator.unpruned

    def measure(self) -> Point:
        """Evaluate the pruned model on both sides and add the point to the curve; no hook is left in the model.

        Raises:
            DissectError: The controls choose nothing, the model cannot be evaluated, or the explorer is closed.
        """
        with self._busy() as tick:
            point = self._evaluator.measure(self.choice, tick)
            self._panes.curve.show(self.points, self.unpruned, self._evaluator.now)
            cut = f"at {point.settings.gain:.0%}" if point.settings.gain else "pruned"
            self._say(
                f"{point.units:,} of {point.total:,} {point.settings.site} units {cut}: top-1 accuracy drops by "
                f"{100 * point.forget_drop:.1f}%{in_brackets(point.forget_interval)} on forget and "
                f"{100 * point.retain_drop:.1f}%{in_brackets(point.retain_interval)} on retain "
                f"({len(self._evaluator.current)} measured){self._changed()}"
            )
        return point

    def try_prompt(self, prompt: str) -> Trial:
        """Continue a prompt with the unpruned and the pruned model, and show both; no hook is left in the model.

        Raises:
            DissectError: The controls choose nothing, the model cannot continue a text (`why_not`), the prompt is
                no text, empty or too long, or the explorer is closed.
        """
        if not isinstance(prompt, str):
            raise DissectError(f"prompt must be text, got {shown(prompt)}")
        with self._busy() as tick:
            trial = try_prompt(self._evaluator, self.choice, prompt, self._new_tokens, tick)
            self.trials.append(trial)
            settings = self.choice.settings
            removed = f"{100 * settings.fraction:.3g}% of the {settings.site} units"
            pruned = f"{removed} at {settings.gain:.0%}" if settings.gain else f"Without {removed}"
            self._actions.unpruned.value = self._texts.reading("Unpruned model", trial.unpruned)
            self._actions.pruned.value = self._texts.reading(pruned, trial.pruned)
            self._actions.key.value = self._texts.key(trial)
            self._evaluator.update()
            self._say(self._changed().strip())
        return trial

    def close(self) -> None:
        """Remove the widget from the page. What was measured can still be read."""
        self._closed = True
        self.widget.close()  # not its children: plots that are being removed still use theirs

    def _try(self) -> Trial:
        return self.try_prompt(self._actions.prompt.value)

    def _moved(self) -> None:
        """Choose again and draw it, from statistics alone; if Ctrl-C interrupts this, the next call does it again."""
        settings = self.settings
        if settings == self._shown:
            return
        self._shown = None
        if self._actions.message.value == self._refusal:
            self._say("")
        try:
            self._choice = choose(self._evaluator.evidence, settings)
        except DissectError as error:
            self._choice = error
            self._summary.value = self._texts.paragraph(f"{error}. The plots show the previous choice.", "refused")
        else:
            self._draw(self._choice)
        self._actions.enable(True, chosen=isinstance(self._choice, Choice))
        self._shown = settings

    def _draw(self, choice: Choice) -> None:
        self._summary.value = self._texts.paragraph(describe(choice), "chosen")
        try:
            found = self.agreement
        except DissectError as error:
            found = str(error)
        self._panes.show(choice, found)

    @contextmanager
    def _busy(self) -> Iterator[Callable[[float], None]]:
        """Disable controls and buttons and show progress inside; yields a function that moves the bar."""
        if self._closed:
            raise DissectError("this explorer is closed; open another with dissect.explore(model, forget, retain)")
        self._moved()
        with undoing(lambda: self._enable(True)):
            self._actions.bar.value = 0
            self._say("")
            self._enable(False)
            yield lambda fraction: setattr(self._actions.bar, "value", fraction)

    def _changed(self) -> str:
        """A note if some points, or the scores, are of the model before a change; else empty."""
        others = len(self.points) - len(self._evaluator.current)
        said = f" Points of other states of the model: {others}." if others else ""
        if self._evaluator.now == self._evaluator.opened:
            return said
        return (
            f"{said} The model has changed since this explorer was opened; choices still use its statistics from then."
        )

    def _enable(self, enabled: bool) -> None:
        self._controls.enable(enabled)
        self._actions.enable(enabled, chosen=isinstance(self._choice, Choice))

    def _report(self, action: Callable[[], Any]) -> None:
        """Run the action of a button; an error becomes a message, since a notebook hides tracebacks of callbacks."""
        try:
            action()
        except KeyboardInterrupt:
            self._say("Interrupted; the model is unchanged.", "refused")
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}", "refused")

    def _refuse(self, message: str) -> None:
        """Show why a control refused a value, until a control changes."""
        self._say(message, "refused")
        self._refusal = self._actions.message.value

    def _say(self, text: str, kind: str = "") -> None:
        self._actions.message.value = self._texts.paragraph(text, kind) if text else ""

    def _ipython_display_(self) -> None:
        """Show the widget, and a text for readers of the notebook without a kernel.

        They are two outputs, since a page that has a widget's state shows no other form of the same output.
        """
        from IPython.display import display

        said = str(self._choice) if isinstance(self._choice, DissectError) else describe(self._choice)
        html = self._texts.stand_in(f"{said}; {len(self.points)} choices measured.", self._stand_in)
        display({"text/html": html}, raw=True)
        display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if self._displayed:
            self._panes.renew()
        self._displayed = True
        self._panes.catch_up()
        shown: Any = self.widget._repr_mimebundle_(**kwargs)
        return shown | {"text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Explorer({self.settings}, {len(self.points)} measured)"
