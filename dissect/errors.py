"""The one error a user of `dissect` sees for bad input: it names the value and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DissectError(ValueError):
    """Bad input, or a model or data set that cannot be had. The message names the value and the fix."""


def unknown(kind: str, value: object, known: Iterable[str]) -> DissectError:
    """The error for a name that is not in a registry: lists the known names and the closest one."""
    names = list(known)
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return DissectError(f"unknown {kind} {value!r}{hint} (known: {', '.join(names)})")
