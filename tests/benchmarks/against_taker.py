"""A run of 2% steps beside the same with taker 1.2.3, the library of the paper's authors, one after the other.

`python -m tests.benchmarks.against_taker --python ENV/bin/python`, where ENV is an environment with
`torch==2.13.0 taker==1.2.3 transformers==4.51.3 datasets<4`. Both get the same model and the same text.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import dissect
from dissect import Windows
from dissect.runs.records import Step

CORPORA = {"forget": "python-stdlib", "retain": "wiki-en"}
STEPS_FILE = Path(__file__).with_name("taker_steps.py")


def main() -> None:
    options = arguments()
    model = dissect.load_model("smollm2-135m", dtype="bfloat16")
    windows = {
        side: tuple(
            dissect.load_windows(corpus, model, tokens=options.tokens, context=options.context, split=split)
            for split in ("train", "test")
        )
        for side, corpus in CORPORA.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        theirs = taker_steps(options, model, windows, Path(folder))
        seconds, ours = our_steps(options, model, windows, Path(folder))
    show(options, theirs, seconds, ours)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.against_taker", description=__doc__)
    parser.add_argument("--python", required=True, help="the interpreter that has taker")
    parser.add_argument("--tokens", type=int, default=6_000, help="predictions for statistics, and for evaluation")
    parser.add_argument("--context", type=int, default=256, help="tokens in a window")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--taker-steps", type=int, help="fewer steps for taker, whose steps all cost the same")
    return parser.parse_args()


def our_steps(options: argparse.Namespace, model: Any, windows: dict, folder: Path) -> tuple[float, list[Step]]:
    """Seconds of the whole run, and its history."""
    start = time.perf_counter()
    how = {"fraction": 0.02, "steps": options.steps, "first_position": True}  # as taker counts
    run = dissect.prune(model, **windows, **how, out=folder / "run", progress=False)
    return time.perf_counter() - start, run.history


def taker_steps(options: argparse.Namespace, model: Any, windows: dict, folder: Path) -> list[dict[str, Any]]:
    """Seconds and accuracies of every step that taker takes."""
    texts = {side: {"train": as_texts(model, a), "test": as_texts(model, b)} for side, (a, b) in windows.items()}
    (folder / "texts.json").write_text(json.dumps(texts))
    for_taker(Path(model.source.location), folder / "model")
    numbers = [options.tokens, options.context, options.taker_steps or options.steps]
    command = [options.python, STEPS_FILE, folder / "model", folder / "texts.json", *numbers]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"taker failed:\n{done.stderr[-2000:]}")
    return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("STEP ")]


def as_texts(model: Any, windows: Windows) -> list[str]:
    """The windows as documents. taker begins each with a token of its own and stops when it has seen enough."""
    texts = model.tokenizer.batch_decode(windows.tokens[:, 1:].tolist())
    return [*texts, *texts[:2]]


def for_taker(source: Path, target: Path) -> None:
    """A copy of a model folder that transformers 4.51 reads."""
    shutil.copytree(source, target)
    edit(target / "config.json", rope_theta=100_000.0, torch_dtype="float32", rope_parameters=None)
    edit(target / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None takes a field out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def show(options: argparse.Namespace, theirs: list[dict], seconds: float, ours: list[Step]) -> None:
    """Steps side by side; the whole run, for which taker's is its mean step times the number of steps."""
    print("step  taker (s)  dissect (s)   top-1 on forget, retain: taker, dissect")
    for number, step in enumerate(theirs, 1):
        line = ours[number]
        accuracy = [f"{step['top1'][side] / 100:.3f} {line.metrics[side]['top1']:.3f}" for side in CORPORA]
        print(f"{number:>4}  {step['seconds']:9.1f}  {line.seconds:11.1f}   {'   '.join(accuracy)}")
    whole = options.steps * sum(step["seconds"] for step in theirs) / len(theirs)
    print(
        f"\n{options.steps} steps: taker {whole:.0f} s, dissect {seconds:.0f} s, {whole / seconds:.2f} times as quick"
    )
    steady = theirs[-1]["seconds"] / theirs[0]["seconds"]
    print(f"taker's from {len(theirs)} of its steps; the last takes {steady:.2f} times as long as the first")


if __name__ == "__main__":
    main()
