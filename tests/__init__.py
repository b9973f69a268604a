"""What holds for all tests: the run-time type checker, one thread, and an environment that says nothing.

The checker is beartype, with int accepted where float is asked for, as Python does.
"""

import os
from collections.abc import Callable

from beartype import BeartypeConf, beartype

# Of other libraries and of dissect: read when they are imported, here or in a process that a test starts.
SILENCED = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TQDM_", "PLOTLY_", "DISSECT_")
KEPT = ("DISSECT_CACHE",)  # where the demonstration model is, or is to be

for name in [name for name in os.environ if name.startswith(SILENCED) and name not in KEPT]:
    del os.environ[name]
os.environ["OMP_NUM_THREADS"] = "1"  # here and in kernels: models are tiny, and threads would only wait for each other

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
_kept: dict[tuple, Callable] = {}


def checked(function: Callable) -> Callable:
    """The type checker. A function within a function is made anew at each call: its checker is made once and kept.

    What jaxtyping hands over is a function of the same signature that does nothing, so that one serves all.
    """
    which = function.__module__, function.__qualname__, function.__code__, repr(function.__annotations__)
    if which not in _kept:
        _kept[which] = _beartype(function)
    return _kept[which]
