"""Corpora with names: `NAME=CORPUS`, or a corpus that is its own name; the further corpora of a run are such."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dissect.base.checks import as_list, check_text
from dissect.base.errors import DissectError, shown

TAKEN = ("forget", "retain", "difference")  # what other numbers of a run are called


def as_also(also: Any) -> tuple[str, ...]:
    """Further corpora as a configuration holds them: `{"c++": "torch-headers"}` is `("c++=torch-headers",)`.

    Raises:
        DissectError: They are no list or dict, or a name cannot be one.
    """
    if isinstance(also, Mapping):
        check_names("also", also, TAKEN)
        return tuple(name if name == corpus else f"{name}={corpus}" for name, corpus in also.items())
    return tuple(str(entry) for entry in as_list("also", also, "corpora, or a dict of them by name"))


def parse_also(also: Iterable[Any]) -> dict[str, str]:
    """The further corpora by name.

    Raises:
        DissectError: As `parse_named`.
    """
    return parse_named("also", also, TAKEN)


def parse_named(what: str, entries: Iterable[Any], taken: Collection[str]) -> dict[str, str]:
    """Corpora by name, from `NAME=CORPUS` or a corpus that is its own name; `what` they are is in the error.

    Raises:
        DissectError: One is no text, or a name is empty, `taken`, or given twice.
    """
    corpora: dict[str, str] = {}
    for entry in entries:
        check_text(f"a corpus of {what}", entry)
        name, given, corpus = entry.partition("=")
        if not name or (given and not corpus):
            raise DissectError(f"{what} {shown(entry)} must be a corpus or NAME=CORPUS, such as c++=torch-headers")
        check_names(what, [name], taken)
        if name in corpora:
            raise DissectError(f"{what} names {shown(name)} twice; give each a name of its own, NAME=CORPUS")
        corpora[name] = corpus or name
    return corpora


def check_names(what: str, names: Iterable[Any], taken: Collection[str]) -> None:
    """Raise `DissectError` unless corpora can have these names: text without '=', none of them `taken`."""
    for name in names:
        check_text(f"a name of {what}", name)
        if "=" in name:
            raise DissectError(f"a name of {what} must be text without '=', got {shown(name)}")
        if name in taken:
            raise DissectError(f"{what}: the name {name} is taken; give the corpus another, NAME=CORPUS")
