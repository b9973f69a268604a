"""`python -m dissect` is `dissect`."""

import sys

from dissect.cli.main import main

sys.exit(main())
