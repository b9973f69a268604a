"""The explorer: what the controls choose is shown at once; measuring, cards and prompts run the model.

Python holds the truth, and any number of pages show it: each is told what changes, and asks for what it wants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from dissect.backend.units import Unit
from dissect.base.checks import as_list
from dissect.base.errors import DissectError, shown
from dissect.base.undo import undoing
from dissect.cards.stack import Card
from dissect.evaluation.continuation import why_not
from dissect.evaluation.intervals import in_brackets
from dissect.explorer import messages, texts
from dissect.explorer.agreement import Agreement, agreement
from dissect.explorer.choice import NO_EDITS, Choice, Edits, Settings, choose, describe
from dissect.explorer.controls import Controls
from dissect.explorer.curves import curves
from dissect.explorer.desk import Desk
from dissect.explorer.evaluator import Evaluator, Point
from dissect.explorer.link import Message, message
from dissect.explorer.material import Material
from dissect.explorer.stand_in import stand_in
from dissect.explorer.trial import Trial, try_prompt
from dissect.scoring.masks import Mask
from dissect.scoring.scores import SiteScores

CONTROLS = tuple(field.name for field in fields(Settings))


class Explorer:
    """An explorer, for notebooks and as a page of its own; everything that it does can also be done from code.

    Attributes:
        site, importance, eps, fraction, value, direction, strength: The controls; set `explorer.fraction.value = 0.05`.
            Choosing a site sets `eps` to the default of that site.
        trials: All trials, in order.
    """

    def __init__(self, material: Material, *, theme: str = "auto", new_tokens: int = 40):
        self._material, self._new_tokens = material, new_tokens
        evidence = material.evidence
        self._controls = Controls(evidence.sites, evidence.importances, material.names)
        of = self._controls.by_name
        self.site, self.importance, self.eps, self.fraction = (of[name] for name in CONTROLS[:4])
        self.value, self.direction, self.strength = (of[name] for name in CONTROLS[4:])
        self.trials: list[Trial] = []
        self._edits: dict[str, Edits] = {}
        self._choice: Choice | DissectError = DissectError("nothing is chosen yet")
        self._shown: tuple[Settings, Edits] | None = None
        self._said, self._refusal = ("", ""), ""
        self._closed, self._widget = False, None
        self._cannot_try = material.lacks if material.evaluator is None else why_not(material.evaluator.model)
        self._setup = messages.setup(material, self._controls, theme, self._cannot_try)
        self._desk = Desk(self)
        self._moved()
        self._controls.on_change(self._moved)
        self._controls.on_refusal(self._refuse)

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
    def edits(self) -> Edits:
        """What was added to the site's cut and removed from it by hand."""
        return self._edits.get(self.site.value, NO_EDITS)

    @property
    def choice(self) -> Choice:
        """The units that the controls choose, edited by hand.

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
        """How far the `value` and the `pre_out` choices of these settings agree, without what was edited by hand.

        Raises:
            DissectError: They cannot be compared.
        """
        return agreement(self._material.evidence, self.settings)

    @property
    def points(self) -> list[Point]:
        """All measured points, in order; points of a model that has changed since differ in `Point.contents`."""
        return [] if self._material.evaluator is None else self._material.evaluator.points

    @property
    def unpruned(self) -> dict[str, dict[str, float]]:
        """Metrics of the unpruned model by side, as it was when last measured; empty before the first measurement."""
        return {} if self._material.evaluator is None else self._material.evaluator.unpruned

    @property
    def widget(self) -> Any:
        """The explorer as an anywidget; made when first used.

        Raises:
            DissectError: The extra `notebook` is not installed.
        """
        if self._widget is None:
            from dissect.explorer.widget import ExplorerWidget  # needs the extra `notebook`

            self._widget = ExplorerWidget(self._desk)
        return self._widget

    def add(self, units: Iterable[Unit | tuple]) -> None:
        """Add units to the cut, whatever their score: `explorer.add([("mlp", 24, 157)])`.

        Raises:
            DissectError: A unit does not exist, or there are no statistics of its site.
        """
        self._edit(units, Edits.add)

    def remove(self, units: Iterable[Unit | tuple]) -> None:
        """Remove units from the cut, whatever their score.

        Raises:
            DissectError: As in `add`.
        """
        self._edit(units, Edits.remove)

    def reset(self) -> None:
        """Undo what was added to the site's cut and removed from it by hand."""
        self._edits.pop(self.site.value, None)
        self._moved()

    def card(self, unit: Unit | tuple) -> Card:
        """The card of a unit, made once and kept.

        Raises:
            DissectError: There is no such unit, no model, or the explorer is closed.
        """
        unit, _ = self._material.place(unit)
        if self._material.cards is None:
            raise DissectError(self._material.lacks)
        with self._busy():
            return self._material.cards.card(unit)

    def measure(self) -> Point:
        """Evaluate the pruned model on both sides and add the point to the curve; no hook is left in the model.

        Raises:
            DissectError: The controls choose nothing, there is no model, it cannot be evaluated, or the explorer is
                closed.
        """
        with self._busy() as tick:
            point = self._evaluator.measure(self.choice, tick)
            self._tell(self._curves())
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
            DissectError: The controls choose nothing, there is no model, it cannot continue a text, the prompt is no
                text, empty or too long, or the explorer is closed.
        """
        if not isinstance(prompt, str):
            raise DissectError(f"prompt must be text, got {shown(prompt)}")
        with self._busy() as tick:
            trial = try_prompt(self._evaluator, self.choice, prompt, self._new_tokens, tick)
            self.trials.append(trial)
            self._tell(self._trial())
            self._evaluator.update()
            self._say(self._changed().strip())
        return trial

    def close(self) -> None:
        """Remove the explorer from its pages. What was measured can still be read."""
        self._closed = True
        self._tell(message("closed"))
        if self._widget is not None:
            self._widget.close()

    @property
    def _evaluator(self) -> Evaluator:
        if self._material.evaluator is None:
            raise DissectError(self._material.lacks)
        return self._material.evaluator

    def _edit(self, units: Iterable[Unit | tuple], how: Callable[[Edits, Iterable[int]], Edits]) -> None:
        places = [self._material.place(unit) for unit in as_list("units", units, "units such as ('mlp', 3, 17)")]
        for site in {unit.site for unit, _ in places}:
            self._edit_site(site, [number for unit, number in places if unit.site == site], how)

    def _edit_site(self, site: str, numbers: Iterable[int], how: Callable[[Edits, Iterable[int]], Edits]) -> None:
        self._edits[site] = how(self._edits.get(site, NO_EDITS), numbers)
        self._moved()

    def _moved(self) -> None:
        """Choose again and show it, from statistics alone; if Ctrl-C interrupts this, the next call does it again."""
        settings, edits = self.settings, self.edits
        if (settings, edits) == self._shown:
            return
        self._shown = None
        if self._refusal and self._said[0] == self._refusal:
            self._say("")
        try:
            choice = choose(self._material.evidence, settings, edits)
        except DissectError as error:
            choice = error
        self._choice = choice
        self._desk.tell_choice(choice)
        self._shown = settings, edits

    @contextmanager
    def _busy(self) -> Iterator[Callable[[float], None]]:
        """Let pages wait and show progress inside; yields a function that moves the bar."""
        if self._closed:
            raise DissectError("this explorer is closed; open another with dissect.explore(model, forget, retain)")
        self._moved()
        with undoing(lambda: self._tell(message("busy", fraction=None))):
            self._say("")
            self._tell(message("busy", fraction=0.0))
            yield lambda fraction: self._tell(message("busy", fraction=fraction))

    def _changed(self) -> str:
        """A note if some points, or the scores, are of the model before a change; else empty."""
        others = len(self.points) - len(self._evaluator.current)
        said = f" Points of other states of the model: {others}." if others else ""
        if self._evaluator.now == self._evaluator.opened:
            return said
        return (
            f"{said} The model has changed since this explorer was opened; choices still use its statistics from then."
        )

    def _curves(self) -> Message:
        evaluator = self._material.evaluator
        return curves(self.points, self.unpruned, evaluator.now if evaluator else "", self._material.curves)

    def _trial(self) -> Message:
        return message("trial", html=texts.trial(self.trials[-1]))

    def _tell(self, told: Message) -> None:
        self._desk.link.tell(told)

    def _refuse(self, text: str) -> None:
        """Show why a control refused a value, until a control changes."""
        self._say(text, "refused")
        self._refusal = text

    def _say(self, text: str, tone: str = "") -> None:
        self._said = text, tone
        self._tell(message("said", text=text, tone=tone))

    def _describe(self) -> str:
        return str(self._choice) if isinstance(self._choice, DissectError) else describe(self._choice)

    def _ipython_display_(self) -> None:
        """Show the widget, and a figure for readers of the notebook without a kernel.

        They are two outputs, since a page that has a widget's state shows no other form of the same output.
        """
        from IPython.display import display

        choice = None if isinstance(self._choice, DissectError) else self._choice
        said = f"{self._describe()}; {len(self.points)} choices measured."
        display({"text/html": stand_in(choice, said, self._desk.name)}, raw=True)
        display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        shown, _ = self.widget._repr_mimebundle_(**kwargs)
        return shown | {"text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Explorer({self.settings}, {len(self.points)} measured)"
