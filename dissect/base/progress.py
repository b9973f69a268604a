"""Lines and bars shown during a computation; no result depends on them."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm

from dissect.base.ranks import is_main
from dissect.base.streams import shows_bars


def say(text: str) -> None:
    """Print a line above the bars, as far as standard output takes it; never an error."""
    try:
        try:
            tqdm.write(text)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding or "ascii"
            tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except (OSError, ValueError):  # nobody reads it, the disk is full, or it is closed
        pass


def hidden(progress: bool = True) -> bool:
    """What `disable` of a bar is: True unless one is asked for, by the main rank, in a terminal or a notebook."""
    return not (progress and is_main() and shows_bars(sys.stderr))
