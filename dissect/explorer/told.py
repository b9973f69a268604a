"""What pages know of the choice, and what they have to be told when it changes."""

from __future__ import annotations

from typing import Any

from dissect.base.errors import DissectError
from dissect.explorer import messages
from dissect.explorer.agreement import agreement
from dissect.explorer.choice import Choice
from dissect.explorer.controls import Controls
from dissect.explorer.link import Link, Message
from dissect.explorer.material import Material


class ToldChoice:
    """Tells pages of a choice: which units are cut, and the units themselves only where they are others than before.

    Attributes:
        answers: The last move of a control that was done, by page, so that a page knows whether it is behind.
    """

    def __init__(self, link: Link, material: Material, controls: Controls):
        self._link, self._material, self._controls = link, material, controls
        self._units_told = ""
        self.answers: dict[str, Any] = {}

    def tell(self, choice: Choice | DissectError) -> None:
        """Tell pages of a choice, or why there is none. If Ctrl-C interrupts this, the next call tells all of it."""
        known = isinstance(choice, Choice) and messages.units_key(choice) == self._units_told
        for told in self._about(choice, with_units=not known):
            self._link.tell(told)
        if isinstance(choice, Choice):
            self._units_told = messages.units_key(choice)

    def to_a_new_page(self, choice: Choice | DissectError) -> list[Message]:
        """All that a page has to know that knows nothing; its units, where nothing is chosen yet, are told later."""
        if not isinstance(choice, Choice):
            self._units_told = ""
        return self._about(choice, with_units=True)

    def _about(self, choice: Choice | DissectError, *, with_units: bool) -> list[Message]:
        if isinstance(choice, DissectError):
            reason = f"{choice}. What is drawn is the previous choice."
            return [messages.refused(self._controls, reason, self.answers)]
        try:
            found = agreement(self._material.evidence, choice.settings)
        except DissectError as error:
            found = str(error)
        units = [messages.units(choice, self._material, self._controls)] if with_units else []
        return [*units, messages.cut(choice, self._controls, found, self.answers)]
