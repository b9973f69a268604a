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
from dissect.data.windows import Windows
from dissect.models.fingerprint import model_fingerprint
from dissect.runs.inputs import WINDOWS, load_again, read
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


def check_named(run: Run) -> None:
    """Raise `DissectError` unless names load the run's text."""
    for name, corpus in run.config.corpora.items():
        if corpus.startswith(WINDOWS):
            raise DissectError(f"the {name} data of {run.path} were given as Windows, which no name loads")


def windows_of(run: Run, name: str, model: Any) -> Windows:
    """The windows that the run measured a corpus on, by their recorded fingerprint.

    Raises:
        DissectError: They cannot be read again, or are others now.
    """
    corpus, recorded = run.config.corpora[name], run.record["data"][name]["test"]
    windows = read(corpus, model, run.config, ("test",))[0]
    found = windows.fingerprint if "tokens_fingerprint" in recorded else windows.tokens_fingerprint
    if found != recorded["fingerprint"]:
        raise DissectError(
            f"{corpus!r} is not the text that {run.path} read: its fingerprint is {found[:12]}, the run's "
            f"{recorded['fingerprint'][:12]}"
        )
    return windows
