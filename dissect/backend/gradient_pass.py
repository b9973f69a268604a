"""One pass over a data set forward and back: readers get activations, and the loss's gradient where they ask for it.

Weights are frozen meanwhile: what is kept of a batch is its activations, and these have gradients from the first that a
reader asks for on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dissect.backend.anatomy import soft_cap
from dissect.backend.fast.rules import differentiable
from dissect.backend.forward import ROWS_PER_PRODUCT, Part, logits_per_slice, plan_of, raw_logits
from dissect.backend.hooked_pass import Reader, Reporting, hooked_pass
from dissect.backend.targets import Targets

Weigh = Callable[[Float[Tensor, " row"]], Float[Tensor, " row"]]


def with_gradient(z: Tensor, take: Callable[[Tensor, Tensor], None]) -> None:
    """Ask, in a reader, for a batch's gradient: `take(z, g)` is called on the way back, g in the shape of z."""
    if not z.requires_grad:
        z.requires_grad_()
    values = z.detach()  # z itself would hold the hook that holds it
    z.register_hook(lambda g: take(values, g))


def read_gradients(
    model: Any,
    targets: Targets,
    parts: list[Part],
    readers: Iterable[tuple[Any, Reader]],
    *,
    reporting: Reporting,
    relevance: bool = False,
    weigh: Weigh = torch.ones_like,
) -> float:
    """Read all parts, with gradients of the summed next-token loss (of a masked model: that of the masked tokens).

    Args:
        model: A TransformerLens model.
        targets: What it reads, and has to predict.
        parts: What is read, as `in_parts` gives it.
        readers: What is called with the activations of which hook point; they use `with_gradient`.
        reporting: The bar.
        relevance: Gradients by RelP's rules, see `dissect.backend.fast.rules`.
        weigh: Gives the factor of each prediction's gradient from its loss.

    Returns:
        The summed loss.
    """
    total = 0.0
    options = {"counted": targets.at, "reporting": reporting, "gradients": True}
    with (
        frozen(model),
        differentiable(relevance=relevance),
        hooked_pass(model, targets, parts, readers, **options) as batches,
    ):
        for batch in batches:
            rows, right = targets.rows(batch.residual, batch.part)
            loss, gradient = _loss_gradient(model, rows, right, weigh)
            total += loss
            if rows.requires_grad:
                rows.backward(gradient)
    return total


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Inside the `with` block no weight has a gradient."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def _loss_gradient(
    model: Any, rows: Float[Tensor, "row d_model"], right: Int64[Tensor, " row"], weigh: Weigh
) -> tuple[float, Float[Tensor, "row d_model"]]:
    """The summed loss of some predictions, and its gradient at the final residual stream: some rows at a time."""
    plan, cap, found, total = plan_of(model), soft_cap(model), [], 0.0
    for few, of_few in zip(rows.split(ROWS_PER_PRODUCT), right.split(ROWS_PER_PRODUCT), strict=True):
        leaf = few.detach().requires_grad_()
        logits = raw_logits(model, leaf, plan)
        gradient, size = torch.empty_like(logits), logits_per_slice(rows)
        for some, true, out in zip(logits.detach().split(size), of_few.split(size), gradient.split(size), strict=True):
            losses, slope = _cross_entropy(some, true, cap)
            out.copy_(slope.mul_(weigh(losses)[:, None]))
            total += float(losses.double().sum())
        found.append(torch.autograd.grad(logits, leaf, gradient)[0])
    return total, torch.cat(found) if found else torch.zeros_like(rows)


def _cross_entropy(
    logits: Float[Tensor, "row vocab"], right: Int64[Tensor, " row"], cap: float
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row vocab"]]:
    """The loss of each row, and its derivative by the logits as they are before a soft cap, in float32."""
    wide = logits.float()
    capped = cap * torch.tanh(wide / cap) if cap > 0 else wide
    log_p = capped.log_softmax(1)
    losses = -log_p.gather(1, right[:, None])[:, 0]
    slope = log_p.exp_()
    slope.scatter_add_(1, right[:, None], torch.full_like(losses, -1)[:, None])
    return losses, slope.mul_(1 - (capped / cap) ** 2) if cap > 0 else slope
