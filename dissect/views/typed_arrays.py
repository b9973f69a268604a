"""Arrays in Plotly's typed-array format, for places where Plotly itself would write them as long text."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np


def packed(values: np.ndarray) -> dict[str, str]:
    """A one- or two-dimensional array in the smallest type that holds it: integers exactly, floats in 32 bits."""
    values = np.asarray(values)
    kind = "f4" if values.dtype.kind == "f" else _smallest(values)
    spec = {"dtype": kind, "bdata": base64.b64encode(np.asarray(values, f"<{kind}").tobytes()).decode("ascii")}
    if values.ndim > 1:
        spec["shape"] = ", ".join(map(str, values.shape))
    return spec


def unpacked(spec: dict[str, Any]) -> np.ndarray:
    """The array that was given to `packed`."""
    values = np.frombuffer(base64.b64decode(spec["bdata"]), np.dtype(f"<{spec['dtype']}"))
    return values.reshape([int(size) for size in spec["shape"].split(",")]) if "shape" in spec else values


def _smallest(values: np.ndarray) -> str:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for kind in ("u1", "i2", "i4"):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return kind
    raise OverflowError(f"{low} to {high} do not fit into 32 bits")
