"""How fast dissect is, as ratios measured in one run: `python -m tests.benchmarks --out FILE`."""
