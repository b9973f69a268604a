"""Measure, print one table, and write it with the numbers behind it."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import dissect
from dissect import Mask, Windows
from dissect.cost import forward_operations
from tests.benchmarks import cases
from tests.benchmarks.measure import fastest, peak, resident

COLUMNS = (
    "seconds",
    "tokens/s",
    "× transformers",
    "× TransformerLens",
    "of the machine's product",
    "peak MiB over the model",
)


def main() -> None:
    options = arguments()
    torch.set_grad_enabled(False)
    start = time.perf_counter()
    model = dissect.load_model(options.model)
    load = time.perf_counter() - start
    rows = [{"what": "load", "seconds": load}]
    for context in options.context:
        rows += measured(model, options.tokens, context, options.repeats)
    rows.append({"what": "import dissect", "seconds": fastest({"": cases.fresh_import}, 3)[""]})
    table = as_table(rows)
    print(table)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        about = {"model": options.model, "tokens": options.tokens, "threads": torch.get_num_threads()}
        options.out.with_suffix(".json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(table + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=2_000, help="predictions in a pass")
    parser.add_argument(
        "--context", type=int, nargs="+", default=[256], help="tokens in a window; several measure each"
    )
    parser.add_argument("--repeats", type=int, default=2, help="turns of every case; the table has the fastest")
    parser.add_argument("--out", type=Path, help="writes FILE.json and FILE.md")
    return parser.parse_args()


def measured(model: Any, tokens: int, context: int, repeats: int) -> list[dict[str, Any]]:
    """A row for every case at one length of windows."""
    train, test = (
        dissect.load_windows("python-stdlib", model, tokens=tokens, context=context, split=split)
        for split in ("train", "test")
    )
    peaks = peaks_over_model(model, train, test)
    stats = dissect.collect(model, train, progress=False)
    half = Mask({"mlp": torch.rand(model.cfg.n_layers, model.cfg.d_mlp) < 0.5})
    multiply, operations = cases.product(model.cfg)
    work = {
        **cases.passes(model, train, test),
        "step": lambda: cases.step(model, train, test, Mask.none(model, "mlp")),
        "step, half pruned": lambda: cases.step(model, train, test, half),
        "re-score three sites": lambda: cases.rescore(stats),
        "product": multiply,
    }
    seconds = fastest(work, repeats)
    rate = operations / seconds.pop("product")
    ideal = tokens * forward_operations(model.cfg, context) / rate
    return [
        {"what": f"{name} ({context})", **row(name, taken, seconds, ideal, tokens), "peak": peaks.get(name)}
        for name, taken in seconds.items()
    ]


def peaks_over_model(model: Any, train: Windows, test: Windows) -> dict[str, int | None]:
    """Bytes beyond what the process held before, at the peak of each pass."""
    before = resident()
    most = {
        "collect, three sites": peak(lambda: dissect.collect(model, train, progress=False)),
        "evaluate": peak(lambda: dissect.evaluate(model, test, progress=False)),
    }
    return {name: None if value is None or before is None else value - before for name, value in most.items()}


def row(name: str, taken: float, seconds: dict[str, float], ideal: float, tokens: int) -> dict[str, Any]:
    """Ratios of one case; a step is four passes."""
    if name.startswith("re-score"):
        return {"seconds": taken}
    passes = 4 if name.startswith("step") else 1
    transformers = "transformers, logits" if name in ("evaluate", "transformers, logits") else "transformers, blocks"
    return {
        "seconds": taken,
        "tokens/s": passes * tokens / taken,
        "× transformers": passes * seconds[transformers] / taken,
        "× TransformerLens": passes * seconds["TransformerLens, blocks"] / taken,
        "of the machine's product": passes * ideal / taken,
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """Markdown. Ratios say how many times faster than the other a case is; evaluation counts no unembedding."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for entry in rows:
        peak = entry.get("peak")
        cells = [_digits(entry.get(name)) for name in COLUMNS[:-1]] + [_digits(peak and peak / 2**20)]
        lines.append(f"| {entry['what']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
