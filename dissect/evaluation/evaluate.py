"""What a model predicts of a data set: accuracy, loss, perplexity, as exact sums over all kept positions.

To add a metric, add an entry to `METRICS`: a number for each prediction, averaged over those that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from tqdm.auto import tqdm

from dissect.backend.finite import not_finite
from dissect.backend.forward import Part, default_batch_size, logits_per_slice, passes, run_part, unembed
from dissect.backend.memory import within_memory
from dissect.base.checks import check_batch_size, check_kind
from dissect.base.errors import DissectError
from dissect.base.progress import hidden
from dissect.base.ranks import all_reduce_sum_, sharded
from dissect.data.windows import Windows
from dissect.evaluation.documents import DocumentSums
from dissect.evaluation.targets import Questions, questions

COMMON = 50  # the paper's skip50: accuracy without the most common tokens of a data set


@dataclass(frozen=True, eq=False)
class Predictions:
    """What metrics see of some predictions.

    Attributes:
        rank: How many vocabulary entries come before the true one; ties are ordered by index, as argmax does.
        loss: Cross-entropy of the true token, in nats.
        common: True where the true token is one of the data set's 50 most common ones.
        kl: KL divergence from the reference model's prediction, in nats; empty without a reference.
    """

    rank: Int64[Tensor, " row"]
    loss: Float[Tensor, " row"]
    common: Bool[Tensor, " row"]
    kl: Float[Tensor, " kl"]


@dataclass(frozen=True)
class Metric:
    """Attributes:
    of: A number for each prediction.
    counted: True for the predictions that it is averaged over; all of them by default.
    """

    of: Callable[[Predictions], Tensor]
    counted: Callable[[Predictions], Bool[Tensor, " row"]] = lambda predictions: torch.ones_like(predictions.common)


METRICS: dict[str, Metric] = {
    "top1": Metric(lambda predictions: predictions.rank < 1),
    "top10": Metric(lambda predictions: predictions.rank < 10),
    "loss": Metric(lambda predictions: predictions.loss),
    "top1_skip50": Metric(lambda predictions: predictions.rank < 1, lambda predictions: ~predictions.common),
    "top10_skip50": Metric(lambda predictions: predictions.rank < 10, lambda predictions: ~predictions.common),
    "kl": Metric(lambda predictions: predictions.kl),
}


def evaluate(
    model: Any,
    windows: Windows,
    *,
    reference: Reference | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Metrics of what `model` predicts of `windows`.

    A causal model predicts every kept token from those before it; a masked one 15% of them from both sides
    (see `questions`).

    Args:
        model: A TransformerLens model, ablated or whole.
        windows: The data set.
        reference: What `remember` kept of the whole model on the same windows, for the KL divergence from it.
        seed: Of the tokens a masked model is asked for.
        batch_size: Windows per forward pass; by default about 2,048 tokens on a CPU, more on a GPU, fewer where memory
            is short.
        progress: Show a progress bar (of the main rank's part, inside `distributed`).

    Returns:
        `top1` and `top10` accuracy in [0, 1], mean `loss` in nats, `perplexity` = exp(mean loss), both accuracies
        without the data set's 50 most common true tokens (`top1_skip50`, `top10_skip50`; 0 where none is left),
        `kl` in nats with a reference, and `n`, the number of predictions.

    Raises:
        DissectError: Nothing is kept, the logits are not finite (with the first layer and site that are not
            either), a masked model has no mask token, or there is too little memory.
    """
    options = {"reference": reference, "seed": seed, "batch_size": batch_size, "progress": progress}
    return evaluate_documents(model, windows, **options).metrics()


def evaluate_documents(
    model: Any,
    windows: Windows,
    *,
    reference: Reference | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> DocumentSums:
    """As `evaluate`, document by document: its `metrics()` are what `evaluate` gives.

    The documents are those of which anything is asked, in the order of their numbers in `windows.documents`.
    """
    asked = questions(model, windows, seed=seed)
    names = tuple(name for name in METRICS if name != "kl" or reference is not None)
    documents = torch.zeros_like(asked.documents)
    documents[asked.at] = asked.documents[asked.at].unique(return_inverse=True)[1]
    both = _within_memory(
        model, asked, batch_size, lambda parts: _sums(model, asked, documents, names, reference, parts, progress)
    )
    sums, counts = all_reduce_sum_(both)
    if not sums.isfinite().all():
        raise not_finite(model, asked, passes(model, asked.at, batch_size))
    return DocumentSums(names, sums, counts)


def _within_memory(
    model: Any, asked: Questions, batch_size: int | None, measure: Callable[[list[Part]], Tensor]
) -> Tensor:
    """What `measure` gives for the passes over all questions."""
    check_batch_size(batch_size)
    shape = asked.tokens.shape

    def of_size(size: int) -> Tensor:
        return measure(passes(model, asked.at, size))

    return within_memory(of_size, batch_size, default_batch_size(model, shape[1]), shape)


@torch.no_grad()
def _sums(
    model: Any,
    asked: Questions,
    documents: Int64[Tensor, "window position"],
    names: tuple[str, ...],
    reference: Reference | None,
    parts: list[Part],
    progress: bool,
) -> Float64[Tensor, "sums_and_counts document metric"]:
    """This rank's sums of the metrics by document, and over how many predictions."""
    sums, counts = both = torch.zeros(2, int(documents.max()) + 1, len(names), dtype=torch.float64)
    mine = [(asked.at[part], documents[part]) for part in sharded(parts)]
    total = sum(int(at.sum()) for at, _ in mine)
    _check_reference(reference, total)
    bar = tqdm(total=total, unit="tok", unit_scale=True, desc="evaluation", leave=False, disable=hidden(progress))
    with bar:
        for (at, numbered), predictions in zip(mine, _predictions(model, asked, reference, parts), strict=True):
            numbers, counted = _measured(predictions, names)
            sums.index_add_(0, numbered[at], numbers)
            counts.index_add_(0, numbered[at], counted)
            bar.update(len(numbers))
    return both


def _measured(
    predictions: Predictions, names: Sequence[str]
) -> tuple[Float64[Tensor, "row metric"], Float64[Tensor, "row metric"]]:
    """The metrics of each prediction, 0 where it does not count, and 1 where it does; on the CPU.

    There they are added up: on a GPU, sums by document depend on which thread comes first.
    """
    counted = torch.stack([METRICS[name].counted(predictions) for name in names], 1)
    numbers = torch.stack([METRICS[name].of(predictions).float() for name in names], 1)
    return numbers.where(counted, 0).cpu().double(), counted.cpu().double()


@dataclass(frozen=True, eq=False)
class Reference:
    """The whole model's final residual stream at every prediction, in its own dtype: what its logits are made of.

    It holds predictions x d_model numbers: 115 MB for 100,000 predictions of SmolLM2 in bfloat16. Inside `distributed`
    a rank holds those of the batches that it evaluates.
    """

    rows: Float[Tensor, "row d_model"]


def remember(model: Any, windows: Windows, *, seed: int = 0, batch_size: int | None = None) -> Reference:
    """Keep what `model` now predicts of `windows`, for `evaluate(..., reference=)` after it is pruned.

    Raises:
        DissectError: As `evaluate`.
    """
    asked = questions(model, windows, seed=seed)
    rows = _within_memory(model, asked, batch_size, lambda parts: _remembered(model, asked, parts))
    if all_reduce_sum_((~rows.isfinite()).sum()):
        raise not_finite(model, asked, passes(model, asked.at, batch_size))
    return Reference(rows)


@torch.no_grad()
def _remembered(model: Any, asked: Questions, parts: list[Part]) -> Float[Tensor, "row d_model"]:
    found = [rows for rows, _ in _asked_rows(model, asked, parts)]
    return torch.cat(found) if found else torch.empty(0, model.cfg.d_model, dtype=model.cfg.dtype)


def _check_reference(reference: Any, total: int) -> None:
    if reference is None:
        return
    check_kind("reference", reference, Reference, "what dissect.evaluation.evaluate.remember(model, windows) gave")
    if len(reference.rows) != total:
        raise DissectError(
            f"reference is of {len(reference.rows)} predictions, the windows ask for {total}; "
            "remember the same windows with the same seed"
        )


def _asked_rows(
    model: Any, asked: Questions, parts: list[Part]
) -> Iterator[tuple[Float[Tensor, "row d_model"], Int64[Tensor, " row"]]]:
    """The final residual stream where the model is asked, and the answers, a batch at a time."""
    for part in sharded(parts):
        residual = run_part(model, asked, part)
        at = asked.at[part]
        yield residual[at.to(residual.device)], asked.answers[part][at].to(residual.device)


def _predictions(model: Any, asked: Questions, reference: Reference | None, parts: list[Part]) -> Iterator[Predictions]:
    common = most_common(asked.answers[asked.at], COMMON)
    start = 0
    for rows, targets in _asked_rows(model, asked, parts):
        wanted = targets.split(logits_per_slice(rows))
        base = repeat(None)
        if reference is not None:
            base = unembed(model, reference.rows[start : start + len(rows)])
        judged = [_judge(*some) for some in zip(unembed(model, rows), wanted, base, strict=False)]
        rank, loss, kl = (torch.cat(parts) for parts in zip(*judged, strict=True))
        is_common = torch.isin(targets, common.to(targets.device))
        yield Predictions(rank, loss, is_common, kl)
        start += len(rows)


def most_common(tokens: Int64[Tensor, " row"], count: int) -> Int64[Tensor, " common"]:
    """The `count` most frequent tokens, the lower id first among equals; fewer if there are fewer."""
    counts = tokens.bincount()
    ranked = torch.sort(counts, descending=True, stable=True).indices[:count]
    return ranked[counts[ranked] > 0]


def _judge(
    logits: Float[Tensor, "row vocab"], targets: Int64[Tensor, " row"], base: Float[Tensor, "row vocab"] | None
) -> tuple[Int64[Tensor, " row"], Float[Tensor, " row"], Float[Tensor, " kl"]]:
    """Rank and loss of the true tokens, and the divergence from `base` (empty without it)."""
    log_p = logits.log_softmax(1)
    loss = -log_p.gather(1, targets[:, None])[:, 0]
    kl = loss[:0]
    if base is not None:
        kl = _divergence(base.log_softmax(1), log_p)
    return _rank(logits, targets), loss, kl


def _divergence(base: Float[Tensor, "row vocab"], log_p: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """KL(base || model) = Σ p_base (log p_base - log p_model)."""
    return (base.exp() * (base - log_p)).sum(1)


def _rank(logits: Float[Tensor, "row vocab"], targets: Int64[Tensor, " row"]) -> Int64[Tensor, " row"]:
    """How many entries are greater than the true one, or equal to it and before it.

    Comparisons are written as 0.0 and 1.0: into a bool tensor they take four times as long on a CPU.
    """
    true = logits.gather(1, targets[:, None])
    count = torch.eq(logits, true, out=torch.empty_like(logits))
    places = torch.arange(logits.shape[1], device=logits.device, dtype=torch.float32)
    earlier = torch.lt(places, targets[:, None], out=torch.empty_like(logits))
    count.mul_(earlier).add_(torch.gt(logits, true, out=earlier))
    return count.sum(1).long()
