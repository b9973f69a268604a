"""The further corpora of a run, which are measured at every step, and chose nothing: names and corpora in one text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dissect.base.checks import as_list, check_text
from dissect.base.errors import DissectError, shown

TAKEN = ("forget", "retain", "difference")  # what other numbers of a run are called


def as_also(also: Any) -> tuple[str, ...]:
    """Further corpora as a configuration holds them: `{"c++": "torch-headers"}` is `("c++=torch-headers",)`.

    Raises:
        DissectError: They are no list or dict, or a name is no text or has a '=' in it.
    """
    if isinstance(also, Mapping):
        for name in also:
            if not isinstance(name, str) or "=" in name:
                raise DissectError(f"a name of also must be text without '=', got {shown(name)}")
        return tuple(name if name == corpus else f"{name}={corpus}" for name, corpus in also.items())
    return tuple(str(entry) for entry in as_list("also", also, "corpora, or a dict of them by name"))


def parse_also(also: Iterable[Any]) -> dict[str, str]:
    """The corpora by name: `name=corpus`, or a corpus that is its own name.

    Raises:
        DissectError: One is no text, or a name is empty, taken, or given twice.
    """
    corpora: dict[str, str] = {}
    for entry in also:
        check_text("a corpus of also", entry)
        name, given, corpus = entry.partition("=")
        if not name or (given and not corpus):
            raise DissectError(f"also {shown(entry)} must be a corpus or NAME=CORPUS, such as c++=torch-headers")
        if name in TAKEN:
            raise DissectError(f"also {shown(entry)}: {name} is taken; give the corpus another name, NAME=CORPUS")
        if name in corpora:
            raise DissectError(f"also names {shown(name)} twice; give each a name of its own, NAME=CORPUS")
        corpora[name] = corpus or name
    return corpora
