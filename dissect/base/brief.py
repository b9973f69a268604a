"""What a notebook shows of an object that holds tensors: their shapes in place of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

MOST = 6  # of a mapping or a tuple that are shown


class Brief:
    """A dataclass (with `repr=False`) whose repr stays short, whatever it holds."""

    def __repr__(self) -> str:
        values = {each.name: getattr(self, each.name) for each in fields(cast(Any, self))}
        shown = (f"{name}={brief(value)}" for name, value in values.items())
        return f"{type(self).__name__}({', '.join(shown)})"


def brief(value: Any) -> str:
    """A value in few words: `float64[30 x 1536]` for a tensor, the first entries of a mapping or a tuple."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{str(value.dtype).removeprefix('torch.')}[{' x '.join(map(str, value.shape))}]"
    if isinstance(value, Mapping):
        shown = [f"{key!r}: {brief(entry)}" for key, entry in value.items()]
        return f"{{{', '.join(_first(shown))}}}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(_first([brief(entry) for entry in value]))})"
    return repr(value)


def _first(shown: list[str]) -> list[str]:
    return shown if len(shown) <= MOST else [*shown[:MOST], f"... {len(shown)} in all"]
