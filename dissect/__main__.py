"""`python -m dissect` is `dissect`."""

import sys

from dissect.cli import main

sys.exit(main())
