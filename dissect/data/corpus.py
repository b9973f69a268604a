"""A corpus with a name."""

from __future__ import annotations

from dataclasses import dataclass

from dissect.data.sources import Source
from dissect.data.tables import Table


@dataclass(frozen=True)
class Corpus:
    """A corpus with a name.

    Attributes:
        source: Gives its documents.
        about: What it is and under which licence, in one line.
    """

    source: Source
    about: str

    @property
    def offline(self) -> bool:
        """True where nothing of it comes from the hub."""
        return not (isinstance(self.source, Table) and self.source.repo)
