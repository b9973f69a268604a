"""Several cards in a notebook, below each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload


@dataclass(frozen=True, eq=False, repr=False)
class Cards(Sequence[Any]):
    """Cards in the order they were asked for; `_repr_html_` draws them below each other.

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
