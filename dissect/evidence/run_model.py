"""The model of a run, to measure it: the one that the run's record says, and left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dissect.ablation.svd import rotate
from dissect.ablation.weight_edit import WeightEdit
from dissect.base.checks import check_kind
from dissect.base.errors import DissectError
from dissect.base.undo import undoing
from dissect.models.fingerprint import model_fingerprint
from dissect.runs.inputs import load_again
from dissect.runs.run import Run


def check_pruned(run: Any) -> None:
    """Raise `DissectError` unless `run` is one that has pruned something."""
    check_kind("run", run, Run, "a Run, as dissect.Run.load(folder) gives it")
    if len(run.history) < 2:
        raise DissectError(f"{run.path} has pruned nothing yet; give its command again to resume it")


@contextmanager
def model_of(run: Run, model: Any, device: str | None = None) -> Iterator[Any]:
    """Inside the `with` block the run's model, in the basis in which it pruned: `model`, or loaded again by its name.

    Raises:
        DissectError: It cannot be loaded, or is another one than the run pruned.
    """
    model = load_again(run, "in Python, give it as model=", device) if model is None else model
    found, recorded = model_fingerprint(model), run.record["model"]["fingerprint"]
    if found != recorded:
        raise DissectError(
            f"{run.config.model!r} is not the model that {run.path} pruned: its fingerprint is {found[:12]}, the run's "
            f"{recorded[:12]}; give that one as model="
        )
    rotation = WeightEdit()
    with undoing(rotation.restore):
        if run.config.svd:
            rotate(rotation, model)
        yield model
