"""bfloat16 beside float32, on the quick pass and on TransformerLens' own: `python -m tests.benchmarks.precision`."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import Any

import dissect
from dissect import Mask
from dissect.backend import fast

CORPORA = {"forget": "python-stdlib", "retain": "wiki-en"}
SITES = ("mlp", "value", "pre_out")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.precision", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=4_000, help="predictions, of each side")
    options = parser.parse_args()
    exact = results(options, "float32")
    print("| | top-1 on forget, retain | loss on forget, retain | masks of 2% shared with float32: " + ", ".join(SITES))
    print("| --- " * 4 + "|")
    print_row("float32", exact, exact)
    print_row("bfloat16, TransformerLens", results(options, "bfloat16", plain=True), exact)
    print_row("bfloat16, dissect", results(options, "bfloat16"), exact)


def results(options: argparse.Namespace, dtype: str, *, plain: bool = False) -> tuple[dict[str, Any], dict[str, Mask]]:
    """Metrics of both sides, and the units that 2% of each site are."""
    model = dissect.load_model(options.model, dtype=dtype)
    sides = {
        side: dissect.load_windows(name, model, tokens=options.tokens, context=256) for side, name in CORPORA.items()
    }
    with fast.disabled() if plain else nullcontext():
        metrics = {side: dissect.evaluate(model, windows) for side, windows in sides.items()}
        stats = {side: dissect.collect(model, windows, sites=SITES) for side, windows in sides.items()}
    scores = dissect.score(**stats)
    return metrics, {site: scores[site].top(0.02) for site in SITES}


def print_row(name: str, found: tuple[dict, dict], exact: tuple[dict, dict]) -> None:
    """One row of the table."""
    metrics, masks = found
    cells = [", ".join(f"{metrics[side][what]:.4f}" for side in CORPORA) for what in ("top1", "loss")]
    shared = ", ".join(f"{len(masks[site] & exact[1][site]) / len(masks[site]):.3f}" for site in SITES)
    print(f"| {name} | {' | '.join(cells)} | {shared} |")


if __name__ == "__main__":
    main()
