"""The tests ask what this project does, not what the shell that started them has set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

HOSTILE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": "/proc/nowhere",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "PLOTLY_RENDERER": "none of them",
    "DISSECT_FAST": "0",
}
# One for each variable, or nearly; those of the hub failed offline.
TESTS = [
    "tests/data/test_corpora.py::test_unreachable_hub_names_what_works_offline",
    "tests/data/test_corpora.py::test_silent_hub_is_not_waited_for",
    "tests/data/test_corpora.py::test_compressed_json_lines_as_the_pile_has_them",
    "tests/test_environment.py::test_nothing_of_it_is_left",
]


def test_nothing_of_it_is_left():
    assert not set(HOSTILE) & set(os.environ)


def test_the_callers_environment_is_no_matter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | HOSTILE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3_000:]
    assert "7 passed" in done.stdout
