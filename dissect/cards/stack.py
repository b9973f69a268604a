"""Cards in a notebook: one alone, or several below each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from dissect.backend.units import Unit
from dissect.cards.html import card_html


class Card:
    """A card of one unit; a notebook shows it as HTML."""

    unit: Unit
    model: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.unit} of {self.model})"

    def _repr_html_(self: Any) -> str:
        return card_html(self)


@dataclass(frozen=True, eq=False, repr=False)
class Cards(Sequence[Any]):
    """Cards in the order in which their units were given; a notebook shows them below each other.

    Attributes:
        cards: The cards.
    """

    cards: tuple[Any, ...]

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Cards: ...

    def __getitem__(self, index: int | slice) -> Any:
        return Cards(self.cards[index]) if isinstance(index, slice) else self.cards[index]

    def __len__(self) -> int:
        return len(self.cards)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.cards)

    def __repr__(self) -> str:
        return f"Cards({', '.join(str(card.unit) for card in self.cards)})"

    def _repr_html_(self) -> str:
        return "".join(card._repr_html_() for card in self.cards)
