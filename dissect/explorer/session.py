"""The explorer itself: what its controls choose is drawn at once; its buttons run the model."""

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
from dissect.explorer.bench import Bench, Point
from dissect.explorer.choice import Choice, Settings, choose
from dissect.explorer.trial import Trial, try_prompt
from dissect.scoring.masks import Mask
from dissect.scoring.scores import SiteScores

CONTROLS = tuple(field.name for field in fields(Settings))


class Explorer:
    """A widget that shows itself in a notebook; everything it does can be done from code too.

    Attributes:
        site, importance, eps, fraction, value, direction: The controls; set `explorer.fraction.value = 0.05`. Choosing
            a site sets `eps` to that site's own.
        trials: What was tried, in order.
    """

    def __init__(self, bench: Bench, names: Mapping[str, str], *, about: str, theme: str, new_tokens: int):
        from dissect.explorer import board, controls, panes, texts  # these need the extra `notebook`
        from dissect.explorer.plot import Page

        self._bench, self._new_tokens, self._texts = bench, new_tokens, texts
        self._controls = controls.Controls(bench.evidence.sites, names)
        self.site, self.fraction, self.importance = (self._controls.widgets[place] for place in (0, 1, 2))
        self.eps, self.direction, self.value = (self._controls.widgets[place] for place in (3, 4, 5))
        self.trials: list[Trial] = []
        n_layers = bench.model.cfg.n_layers
        self._importance, self._curve = panes.ImportancePane(theme), panes.CurvePane(theme)
        self._layers, self._agreement = panes.LayersPane(n_layers, theme), panes.AgreementPane(n_layers, theme)
        self._actions = board.Actions(why_not(bench.model))
        self._summary = board.w.HTML()
        self._choice: Choice | DissectError = DissectError("nothing is chosen yet")
        self._shown: Settings | None = None
        self._closed = self._displayed = False
        self._refusal = ""
        self._moved()
        self._plots = [pane.plot for pane in (self._importance, self._layers, self._agreement, self._curve)]
        self._columns = board.columns([plot.widget for plot in self._plots], 400)
        self._page = Page(plots=len(self._plots))
        self._page.observe(lambda change: self._refresh(), names="shown")
        lines = [self._summary, board.w.HTML(texts.paragraph(about, "faint"))]
        self._stand_in = f"dissect-explorer-{uuid4().hex}"
        style = texts.style(theme, self._stand_in)
        self.widget = board.board(self._controls, [self._columns, self._page], self._actions, lines, style)
        self._controls.on_change(self._moved)
        self._controls.on_refusal(self._refuse)
        self._actions.measure.on_click(lambda button: self._report(self.measure))
        self._actions.try_it.on_click(lambda button: self._report(self._try))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute.

        Raises:
            DissectError: It is a control, which is not replaced but set.
        """
        if name in CONTROLS and name in vars(self):
            raise DissectError(f"{name} is a control; write explorer.{name}.value = {shown(value)}")
        super().__setattr__(name, value)

    @property
    def settings(self) -> Settings:
        """Where the controls stand."""
        return self._controls.settings

    @property
    def choice(self) -> Choice:
        """What they choose.

        Raises:
            DissectError: They choose nothing; the message is the one that is shown.
        """
        self._moved()
        if isinstance(self._choice, DissectError):
            raise self._choice
        return self._choice

    @property
    def scores(self) -> SiteScores:
        """The scores of the site; their `forget` is the side that is to lose."""
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
        return agreement(self._bench.evidence, self.settings)

    @property
    def points(self) -> list[Point]:
        """What was measured, in order; `Point.contents` tells points of a model that was changed since from others."""
        return self._bench.points

    @property
    def whole(self) -> dict[str, dict[str, float]]:
        """Metrics of the whole model by side, as it was when last measured; empty until something is."""
        return self._bench.whole

    def measure(self) -> Point:
        """Evaluate the pruned model on both sides and add the point to the curve; no hook is left behind.

        Raises:
            DissectError: The controls choose nothing, the model cannot be evaluated, or the explorer is closed.
        """
        with self._busy() as tick:
            point = self._bench.measure(self.choice, tick)
            self._curve.show(self.points, self.whole, self._bench.now)
            self._say(
                f"{point.units:,} of {point.total:,} {point.settings.site} units pruned: top-1 accuracy falls by "
                f"{100 * point.forget_drop:.1f}%{in_brackets(point.forget_interval)} on forget and "
                f"{100 * point.retain_drop:.1f}%{in_brackets(point.retain_interval)} on retain "
                f"({len(self._bench.current)} measured){self._changed()}"
            )
        return point

    def try_prompt(self, prompt: str) -> Trial:
        """Let the whole and the pruned model continue a prompt, and show both; no hook is left behind.

        Raises:
            DissectError: The controls choose nothing, the model cannot continue a text (`why_not`), the prompt is
                no text, empty or too long, or the explorer is closed.
        """
        if not isinstance(prompt, str):
            raise DissectError(f"prompt must be text, got {shown(prompt)}")
        with self._busy() as tick:
            trial = try_prompt(self._bench, self.choice, prompt, self._new_tokens, tick)
            self.trials.append(trial)
            part = f"{100 * self.choice.settings.fraction:.3g}% of the {self.choice.settings.site}"
            self._actions.whole.value = self._texts.reading("Whole model", trial.whole)
            self._actions.pruned.value = self._texts.reading(f"Without {part} units", trial.pruned)
            self._actions.key.value = self._texts.key(trial)
            self._bench.look()
            self._say(self._changed().strip())
        return trial

    def close(self) -> None:
        """Remove it from the page. What was measured stays readable."""
        self._closed = True
        self.widget.close()  # not what it holds: plots that are being removed still talk to theirs

    def _try(self) -> Trial:
        return self.try_prompt(self._actions.prompt.value)

    def _moved(self) -> None:
        """Choose anew and draw it, from statistics alone; what Ctrl-C cut short is done when next it is asked for."""
        settings = self.settings
        if settings == self._shown:
            return
        self._shown = None
        if self._actions.message.value == self._refusal:
            self._say("")
        try:
            self._choice = choose(self._bench.evidence, settings)
        except DissectError as error:
            self._choice = error
            self._summary.value = self._texts.paragraph(f"{error}. The plots show the choice before.", "refused")
        else:
            self._draw(self._choice)
        self._actions.enable(True, chosen=isinstance(self._choice, Choice))
        self._shown = settings

    def _draw(self, choice: Choice) -> None:
        self._summary.value = self._texts.paragraph(describe(choice), "chosen")
        self._importance.show(choice)
        self._layers.show(choice)
        try:
            self._agreement.show(self.agreement)
        except DissectError as error:
            self._agreement.refuse(str(error))

    @contextmanager
    def _busy(self) -> Iterator[Callable[[float], None]]:
        """Controls and buttons are off and progress is shown; a function that moves the bar."""
        if self._closed:
            raise DissectError("this explorer is closed; open another with dissect.explore(model, forget, retain)")
        self._moved()
        with undoing(lambda: self._enable(True)):
            self._actions.bar.value = 0
            self._say("")
            self._enable(False)
            yield lambda part: setattr(self._actions.bar, "value", part)

    def _changed(self) -> str:
        """What is to be said where not all points are of the model as it is, or its scores are not."""
        others = len(self.points) - len(self._bench.current)
        said = f" Others, of this model in another state: {others}." if others else ""
        if self._bench.now == self._bench.opened:
            return said
        return f"{said} The model has changed since this explorer was opened: choices still go by what it was then."

    def _enable(self, enabled: bool) -> None:
        self._controls.enable(enabled)
        self._actions.enable(enabled, chosen=isinstance(self._choice, Choice))

    def _report(self, action: Callable[[], Any]) -> None:
        """Do what a button says; an error becomes a message, since a traceback of a callback would go unseen."""
        try:
            action()
        except KeyboardInterrupt:
            self._say("Interrupted; the model is as it was.", "refused")
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}", "refused")

    def _refuse(self, message: str) -> None:
        """Say what a control cannot be set to, until one of them moves."""
        self._say(message, "refused")
        self._refusal = self._actions.message.value

    def _say(self, text: str, kind: str = "") -> None:
        self._actions.message.value = self._texts.paragraph(text, kind) if text else ""

    def _refresh(self) -> None:
        """Draw anew if something moved between being sent to the page and being shown there."""
        if any(plot.behind for plot in self._plots):
            self._renew()

    def _renew(self) -> None:
        self._columns.children = [plot.renew() for plot in self._plots]

    def _ipython_display_(self) -> None:
        """Show it, and what is seen in its place where the notebook is only read.

        They are two outputs: a page that knows a widget's state shows no other form of the widget's own output.
        """
        from IPython.display import display

        said = str(self._choice) if isinstance(self._choice, DissectError) else describe(self._choice)
        html = self._texts.stand_in(f"{said}; {len(self.points)} choices measured.", self._stand_in)
        display({"text/html": html}, raw=True)
        display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if self._displayed:
            self._renew()
        self._displayed = True
        for plot in self._plots:
            plot.catch_up()
        shown: Any = self.widget._repr_mimebundle_(**kwargs)
        return shown | {"text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Explorer({self.settings}, {len(self.points)} measured)"


def describe(choice: Choice) -> str:
    """A choice in a line."""
    settings, layers = choice.settings, sum(count > 0 for count in choice.per_layer)
    return (
        f"{len(choice.mask):,} of {choice.mask.total:,} {settings.site} units chosen "
        f"({100 * len(choice.mask) / choice.mask.total:.3g}%), in {layers} of {len(choice.per_layer)} layers, "
        f"score ≥ {choice.threshold:.3g}"
    )
