"""Linear probes: logistic regression on standardized activations, trained on some documents and measured on others.

A probe says that something can be read off, not that the model reads it (Belinkov, 2022).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import ConfigDict
from torch import Tensor

from dissect.base.errors import DissectError
from dissect.evaluation.intervals import Interval, accuracy_interval

STRENGTH = 0.01  # scikit-learn's C: strong, since rows are hardly more than dimensions
MOST_UPDATES = 2_000


@dataclass(frozen=True)
class ProbeScore:
    """What a probe got right on test documents.

    Attributes:
        accuracy: The share of test rows it got right.
        interval: Its 95% interval over test documents; None where there are too few.
        chance: The share that is right when every answer is the most frequent class of the train rows.
        n: How many test rows there are.
        documents: In how many documents.
    """

    accuracy: float
    interval: Interval
    chance: float
    n: int
    documents: int

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows of all layers with the class of each, and with the document of each in one or more sets of documents.

    Attributes:
        residual: The rows.
        labels: The class of each row.
        documents: The document of each row.
        sets: Which set of documents each row is of; intervals draw each set by itself.
    """

    residual: Float[Tensor, "layer row d_model"]
    labels: Int64[Tensor, " row"]
    documents: Int64[Tensor, " row"]
    sets: Int64[Tensor, " row"]


def check_scikit_learn() -> None:
    """Raise `DissectError` unless scikit-learn is here."""
    if importlib.util.find_spec("sklearn") is None:
        raise DissectError(
            "probes are scikit-learn's logistic regression, which needs: pip install 'dissect[evidence]'; "
            "probe_tokens=0 leaves them out"
        )


def probe_layers(train: Labelled, test: Labelled, bar: Any) -> tuple[ProbeScore, ...]:
    """A probe for each layer; `bar` is told of each."""
    scores = []
    for layer in range(len(train.residual)):
        right = fit_and_ask(train.residual[layer], train.labels, test.residual[layer]) == test.labels.numpy()
        scores.append(_score(right, train.labels, test))
        bar.update()
    return tuple(scores)


def fit_and_ask(
    train: Float[Tensor, "row d_model"], labels: Int64[Tensor, " row"], test: Float[Tensor, "other_row d_model"]
) -> Int64[np.ndarray, " other_row"]:
    """The classes of `test` rows, by a probe trained on `train` rows; mean and scale are those of `train` rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(labels.unique()) == 1:
        return np.full(len(test), int(labels[0]))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=MOST_UPDATES))
    probe.fit(train.double().numpy(), labels.numpy())
    return probe.predict(test.double().numpy())


def _score(right: np.ndarray, trained: Int64[Tensor, " row"], test: Labelled) -> ProbeScore:
    usual = int(trained.bincount().argmax())
    tables = _by_document(right, test)
    return ProbeScore(
        accuracy=float(right.mean()),
        interval=accuracy_interval(*tables),
        chance=float((test.labels == usual).double().mean()),
        n=len(right),
        documents=sum(map(len, tables)),
    )


def _by_document(right: np.ndarray, test: Labelled) -> Sequence[np.ndarray]:
    """Of each set, a row for each document: right answers, and answers."""
    tables = []
    for number in test.sets.unique().tolist():
        chosen = (test.sets == number).numpy()
        places = torch.from_numpy(test.documents.numpy()[chosen]).unique(return_inverse=True)[1].numpy()
        tables.append(np.stack([np.bincount(places, right[chosen]), np.bincount(places)], 1))
    return tables
