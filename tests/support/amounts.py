"""How much of what is random, or has many cases, is tried (much more in `make test-long`), and no waiting for disks."""

from __future__ import annotations

import os

from hypothesis import settings

QUICK = 100  # examples of a test that says no number, as hypothesis has it


def register_profiles(chosen: str) -> None:
    """`quick` draws the same examples each time. No deadlines: a shared machine is slow at times."""
    settings.register_profile("quick", deadline=None, max_examples=QUICK, derandomize=True, database=None)
    settings.register_profile("long", deadline=None, max_examples=10 * QUICK)
    settings.load_profile(chosen)


def examples(number: int) -> settings:
    """So many random examples in the quick suite."""
    return settings(max_examples=number * settings().max_examples // QUICK)


def wait_for_no_disk() -> None:
    """Files are synchronised thousands of times, which takes minutes. That they are is counted (`at_boundaries`)."""
    os.fsync = lambda number: None
