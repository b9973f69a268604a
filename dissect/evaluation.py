"""What a model predicts of a data set: accuracy, loss, perplexity, as exact sums over all kept positions.

To add a metric, add an entry to `METRICS`: a number for each prediction, averaged over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm.auto import tqdm

from dissect.errors import DissectError
from dissect.forward import default_batch_size, run_blocks, unembed
from dissect.windows import Windows

ROWS_PER_SLICE = 512  # logits held at once: that many rows of the vocabulary


@dataclass(frozen=True, eq=False)
class Predictions:
    """What metrics see of some predictions.

    Attributes:
        rank: How many vocabulary entries come before the true one; ties are ordered by index, as argmax does.
        loss: Cross-entropy of the true token, in nats.
    """

    rank: Int64[Tensor, " row"]
    loss: Float[Tensor, " row"]


METRICS: dict[str, Callable[[Predictions], Tensor]] = {
    "top1": lambda predictions: predictions.rank < 1,
    "top10": lambda predictions: predictions.rank < 10,
    "loss": lambda predictions: predictions.loss,
}


def evaluate(model: Any, windows: Windows, *, batch_size: int | None = None, progress: bool = True) -> dict[str, float]:
    """Next-token metrics of `model` over the kept positions of `windows`.

    The prediction of token p counts where `windows.keep[:, p]`; it is made at position p - 1.

    Args:
        model: A TransformerLens model, ablated or whole.
        windows: The data set.
        batch_size: Windows per forward pass; by default about 4,096 tokens.
        progress: Show a progress bar.

    Returns:
        `top1` and `top10` accuracy in [0, 1], mean `loss` in nats, `perplexity` = exp(mean loss), and `n`, the
        number of predictions.

    Raises:
        DissectError: Nothing is kept, or the logits are not finite.
    """
    if windows.n_kept == 0:
        raise DissectError("cannot evaluate on windows without a kept position")
    sums = dict.fromkeys(METRICS, 0.0)
    size = batch_size or default_batch_size(windows.tokens.shape[1])
    bar = tqdm(
        total=windows.n_kept,
        unit="tok",
        unit_scale=True,
        desc="evaluation",
        leave=False,
        disable=not progress,
    )
    with torch.no_grad(), bar:
        for start in range(0, len(windows), size):
            for predictions in _predictions(model, windows, slice(start, start + size)):
                for name, metric in METRICS.items():
                    sums[name] += metric(predictions).sum(dtype=torch.float64).item()
                bar.update(len(predictions.rank))
    means = {name: total / windows.n_kept for name, total in sums.items()}
    if not math.isfinite(means["loss"]):
        raise DissectError("the logits are not finite; load the model with dtype='float32' and look at its input")
    return {**means, "perplexity": exp(means["loss"]), "n": windows.n_kept}


def exp(loss: float) -> float:
    """Perplexity of a mean loss in nats; infinite where a float cannot hold it."""
    return math.exp(loss) if loss < 709 else math.inf


def _predictions(model: Any, windows: Windows, batch: slice) -> Iterator[Predictions]:
    tokens, keep = windows.tokens[batch], windows.keep[batch, 1:]
    residual = run_blocks(model, tokens)
    rows, targets = residual[:, :-1][keep.to(residual.device)], tokens[:, 1:][keep].to(residual.device)
    for some, wanted in zip(rows.split(ROWS_PER_SLICE), targets.split(ROWS_PER_SLICE), strict=True):
        yield _judge(unembed(model, some), wanted)


def _judge(logits: Float[Tensor, "row vocab"], targets: Int64[Tensor, " row"]) -> Predictions:
    true = logits.gather(1, targets[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < targets[:, None]
    before = (logits > true) | ((logits == true) & earlier)
    return Predictions(before.sum(1), logits.logsumexp(1) - true[:, 0])
