"""What a relearning found: curves of accuracy against steps, and how fast each model was back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dissect.base.checks import as_path, check_kind
from dissect.base.errors import DissectError, check_name
from dissect.evidence.anamnesis import bounded_index, steps_until
from dissect.evidence.curves import Curve
from dissect.evidence.relearn_config import GOLD, KINDS, PRUNED, RANDOM, UNPRUNED, Arm, RelearnConfig
from dissect.evidence.relearn_folder import read_folder
from dissect.evidence.texts import HELD_OUT, MEASURED

MODELS = "models"  # the folder with the trained models


@dataclass(frozen=True, eq=False, repr=False)
class Relearning:
    """How a pruned model and its controls learn what was cut, or heal.

    Attributes:
        path: Its folder.
        config: What was asked for.
        record: Model, cut, text and versions.
        curves: One for each training.
    """

    path: Path
    config: RelearnConfig
    record: dict[str, Any]
    curves: tuple[Curve, ...]

    @property
    def original(self) -> dict[str, float]:
        """The unpruned model's accuracy on each text, before any training."""
        first = next(curve for curve in self.curves if curve.arm.model == UNPRUNED).points[0]
        return {text: first.metrics[text]["top1"] for text in MEASURED}

    @property
    def target(self) -> float:
        """The accuracy that counts as back, on the test text of the side that is trained on."""
        return (1 - self.config.alpha) * self.original[self.config.on]

    def steps_until_back(self, curve: Curve) -> float:
        """After how many steps a training is within alpha of the original; infinite where it is not.

        Raises:
            DissectError: `curve` is none.
        """
        _check(curve)
        return steps_until(curve.steps, curve.values(self.config.on), self.target)

    def control_of(self, curve: Curve, model: str) -> Curve | None:
        """The training of a control at the same rate, in the same way, and held or free alike where it has a cut.

        Raises:
            DissectError: `curve` is none, or there is no kind of model that is called so.
        """
        _check(curve)
        check_name("model", model, KINDS)
        held = curve.arm.frozen if model == RANDOM else None
        wanted = Arm(model, curve.arm.way, held, curve.arm.learning_rate)
        return next((each for each in self.curves if each.arm == wanted), None)

    def folder_of(self, curve: Curve) -> Path:
        """The trained model of a curve as a transformers folder, for `load_model`.

        Raises:
            DissectError: It was not kept: only models that were pruned are, and with `save`. Or `curve` is none.
        """
        _check(curve)
        folder = self.path / MODELS / (curve.same_as or curve.arm.name)
        if not folder.is_dir():
            raise DissectError(
                f"the model of {curve.arm.name} was not kept; models that were pruned are, with save=True"
            )
        return folder

    def best(self) -> Curve:
        """The training of the pruned model that ends with the highest accuracy on the side that is trained on."""
        pruned = [curve for curve in self.curves if curve.arm.model == PRUNED]
        return max(pruned, key=lambda curve: curve.values(self.config.on)[-1])

    def table(self) -> pd.DataFrame:
        """A row for each training, point and text: `top1` with the ends of its interval, and `loss` in nats."""
        return pd.DataFrame(list(self._rows())).astype({"low": float, "high": float})

    def _rows(self) -> Iterator[dict[str, Any]]:
        for curve in self.curves:
            for point in curve.points:
                for text in MEASURED:
                    low, high = point.intervals[text] or (None, None)
                    found = {name: point.metrics[text][name] for name in ("top1", "loss", "n")}
                    yield _named(curve.arm) | {"step": point.step, "text": text} | found | {"low": low, "high": high}

    def summary(self) -> pd.DataFrame:
        """A row for each training: accuracies before and after, `steps` until back, and the index against controls.

        `steps` is infinite where the accuracy did not come within alpha. `index_random` is the anamnesis index against
        as many units cut at random, `index_gold` that against a model that never saw the text, where there is one;
        `random_is` and `gold_is` say whether it is that (`=`), or at least (`>`) or at most (`<`) that, since one of
        the two did not get there in the steps that were taken (`?` where neither did). `same_as` names a training
        with the same numbers.
        """
        return pd.DataFrame([self._summary(curve) for curve in self.curves])

    def _summary(self, curve: Curve) -> dict[str, Any]:
        row: dict[str, Any] = _named(curve.arm)
        for text in MEASURED:
            row |= {f"{text}_before": curve.values(text)[0], f"{text}_after": curve.values(text)[-1]}
        row["steps"] = self.steps_until_back(curve)
        for model in (RANDOM, GOLD):
            control = self.control_of(curve, model) if curve.arm.model == PRUNED else None
            index, relation = math.nan, ""
            if control is not None:
                index, relation = bounded_index(row["steps"], self.steps_until_back(control), self.config.steps)
            row |= {f"index_{model}": index, f"{model}_is": relation}
        return row | {"same_as": curve.same_as or ""}

    @classmethod
    def load(cls, path: str | Path) -> Relearning:
        """Open the folder of a finished relearning.

        Raises:
            DissectError: It is not one, it is not finished, or a file of it is damaged.
        """
        path = as_path("path", path)
        return cls(path, *read_folder(path))

    def __repr__(self) -> str:
        on, shown = self.config.on, self.summary().drop(columns=[f"{HELD_OUT}_before"])
        return (
            f"back is an accuracy of {self.target:.3f} on {on}, within {100 * self.config.alpha:g}% of the original's "
            f"{self.original[on]:.3f}\n{shown.to_string(index=False, float_format='{:.4g}'.format)}"
        )


def _check(curve: Any) -> None:
    check_kind("curve", curve, Curve, "one of relearning.curves")


def _named(arm: Arm) -> dict[str, Any]:
    held = {True: "frozen", False: "free", None: ""}[arm.frozen]
    return {"model": arm.model, "way": arm.way, "cut": held, "learning_rate": arm.rate}
