"""What holds for all tests: the run-time type checker, and an environment that says nothing.

The checker is beartype, with int accepted where float is asked for, as Python does.
"""

import os

from beartype import BeartypeConf, beartype

# Of other libraries and of dissect: read when they are imported, here or in a process that a test starts.
SILENCED = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TQDM_", "PLOTLY_", "DISSECT_")
KEPT = ("DISSECT_CACHE",)  # where the demonstration model is, or is to be

for name in [name for name in os.environ if name.startswith(SILENCED) and name not in KEPT]:
    del os.environ[name]

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
