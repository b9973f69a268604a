"""Where the pages of an explorer ask for what they want, and are told what they have to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from dissect.base.errors import DissectError, look_up, shown
from dissect.cards.html import card_body
from dissect.explorer import messages
from dissect.explorer.bundle import packed_plotly
from dissect.explorer.choice import Choice, Edits
from dissect.explorer.link import Link, Message, message

if TYPE_CHECKING:
    from dissect.explorer.explorer import Explorer


class Desk:
    """Serves the pages of one explorer.

    Attributes:
        link: The open pages.
        name: The class of what stands in for the explorer where there is none; open pages hide it.
    """

    def __init__(self, explorer: Explorer):
        self._explorer, self.link, self.name = explorer, Link(), f"dissect-explorer-{uuid4().hex}"
        self._units_told, self._answers = "", {}
        self._actions: dict[str, Callable[[dict[str, Any], Sequence[bytes]], None]] = {
            "hello": self._hello,
            "plotly": self._plotly,
            "set": self._set,
            "edit": self._edit,
            "card": self._card,
            "measure": lambda asked, arrays: self._report(self._explorer.measure),
            "try": lambda asked, arrays: self._report(lambda: self._explorer.try_prompt(asked.get("prompt"))),
        }

    def receive(self, asked: dict[str, Any], arrays: Sequence[bytes] = ()) -> None:
        """Do what a page asks; an error becomes a message in the page."""
        self._report(lambda: look_up("request", asked.get("do"), self._actions)(asked, arrays))

    def tell_choice(self, choice: Choice | DissectError) -> None:
        """Tell pages of a choice, or why there is none; of its units only if they were not told.

        If Ctrl-C interrupts this, the next call tells the units again.
        """
        known = not isinstance(choice, DissectError) and messages.units_key(choice) == self._units_told
        for told in self._about(choice, with_units=not known):
            self.link.tell(told)
        if not isinstance(choice, DissectError):
            self._units_told = messages.units_key(choice)

    def _about(self, choice: Choice | DissectError, *, with_units: bool) -> list[Message]:
        explorer = self._explorer
        if isinstance(choice, DissectError):
            reason = f"{choice}. What is drawn is the previous choice."
            return [messages.refused(explorer._controls, reason, self._answers)]
        try:
            found = explorer.agreement
        except DissectError as error:
            found = str(error)
        told = [messages.cut(choice, explorer._controls, found, self._answers)]
        units = [messages.units(choice, explorer._material, explorer._controls)] if with_units else []
        return [*units, *told]

    def everything(self) -> list[Message]:
        """What a new page has to know."""
        explorer, (text, tone) = self._explorer, self._explorer._said
        content, buffers = explorer._setup
        told = [
            (content | {"stand_in": self.name}, buffers),
            *self._about(explorer._choice, with_units=True),
            explorer._curves(),
            message("said", text=text, tone=tone),
        ]
        return [*told, *(explorer._trial() for _ in explorer.trials[-1:])]

    def _hello(self, asked: dict[str, Any], arrays: Sequence[bytes]) -> None:
        self._explorer._moved()
        if isinstance(self._explorer._choice, DissectError):
            self._units_told = ""  # this page has none yet
        for told in self.everything():
            self.link.tell(told)

    def _plotly(self, asked: dict[str, Any], arrays: Sequence[bytes]) -> None:
        self.link.tell(({"kind": "plotly"}, [packed_plotly()]))

    def _set(self, asked: dict[str, Any], arrays: Sequence[bytes]) -> None:
        self._answers[str(asked.get("page"))] = asked.get("serial")
        explorer = self._explorer
        before = explorer._shown
        try:
            look_up("control", asked.get("name"), explorer._controls.by_name).index = asked.get("index")
        finally:
            if explorer._shown is before:  # nothing changed: the page is told what is
                self.tell_choice(explorer._choice)

    def _edit(self, asked: dict[str, Any], arrays: Sequence[bytes]) -> None:
        explorer = self._explorer
        how = look_up("edit", asked.get("how"), {"add": Edits.add, "remove": Edits.remove, "reset": None})
        if how is None:
            explorer.reset()
            return
        site = look_up("site", asked.get("site"), {site: site for site in explorer._material.evidence.sites})
        numbers = np.frombuffer(arrays[0], "<u4").tolist()
        self._check(site, numbers)
        explorer._edit_site(site, numbers, how)

    def _card(self, asked: dict[str, Any], arrays: Sequence[bytes]) -> None:
        """The card of a unit, or why there is none, to be shown in its place."""
        explorer, site, number = self._explorer, asked.get("site"), asked.get("unit")
        place = {"site": site, "unit": number}
        try:
            look_up("site", site, {site: site for site in explorer._material.evidence.sites})
            self._check(str(site), [number])
            card = explorer.card(explorer._material.unit(str(site), int(number)))  # type: ignore[arg-type]
        except KeyboardInterrupt:
            self.link.tell(message("card", html="", why="Interrupted; the model is unchanged.", **place))
        except Exception as error:
            self.link.tell(message("card", html="", why=_in_words(error), **place))
        else:
            self.link.tell(message("card", html=card_body(card), why="", **place))

    def _check(self, site: str, numbers: Sequence[Any]) -> None:
        total = int(np.prod(self._explorer._material.shape(site)))
        for number in numbers:
            if type(number) is not int or not 0 <= number < total:
                raise DissectError(f"site {site} has the units 0 to {total - 1}, got {shown(number)}")

    def _report(self, action: Callable[[], Any]) -> None:
        """Run what a page asked for; an error becomes a message, since nobody sees tracebacks of callbacks."""
        try:
            action()
        except KeyboardInterrupt:
            self._explorer._say("Interrupted; the model is unchanged.", "refused")
        except Exception as error:
            self._explorer._say(_in_words(error), "refused")


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, DissectError) else f"{type(error).__name__}: {error}"
