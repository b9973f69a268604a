"""The logit lens: what a model would predict if each layer were its last (nostalgebraist, 2020).

The final norm and the unembedding read the residual stream after every layer. No matrix is learned for a layer, as the
tuned lens does, so early layers of some families say little.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from dissect.backend.finite import logits_not_finite
from dissect.backend.forward import Part, passes
from dissect.backend.hooked_pass import Batch, Reporting, hooked_pass, in_parts
from dissect.backend.lens import as_final, check_final, residual_points
from dissect.backend.targets import targets_of
from dissect.base.ranks import all_reduce_sum_
from dissect.data.windows import Windows
from dissect.evaluation.documents import DocumentSums
from dissect.evaluation.evaluate import COMMON, METRICS, measured, most_common, numbered_documents, predicted

NAMES = tuple(name for name in METRICS if name != "kl")


def lens_documents(
    model: Any, windows: Windows, *, batch_size: int | None = None, progress: bool = True
) -> tuple[DocumentSums, ...]:
    """As `evaluate_documents` of a causal model, once for each layer; the last layer's are the model's own.

    Of a batch the rows with a target are held for all layers at once, never more.

    Raises:
        DissectError: The model is masked or unknown here, nothing is kept, or numbers are not finite.
    """
    points, targets = residual_points(model), targets_of(model, windows)
    documents, common = numbered_documents(targets), most_common(targets.right[targets.at], COMMON)
    last, reporting = len(points) - 1, Reporting("logit lens", progress)

    def measure(parts: list[Part]) -> Float64[Tensor, "sums_and_counts layer document metric"]:
        both = torch.zeros(2, len(points), int(documents.max()) + 1, len(NAMES), dtype=torch.float64)
        read: dict[int, Tensor] = {}

        def keep(layer: int, z: Tensor, units: Any, part: Part) -> None:
            read[layer] = targets.rows(z, part)[0]

        def add(batch: Batch) -> None:
            final, right = targets.rows(batch.residual, batch.part)
            numbered = documents[batch.part][targets.at[batch.part]]
            check_final(model, as_final(model, read[last]), final)
            for layer in range(len(points)):
                rows = final if layer == last else as_final(model, read[layer])
                numbers, counted = measured(predicted(batch, rows, right, common), NAMES)
                both[0, layer].index_add_(0, numbered, numbers)
                both[1, layer].index_add_(0, numbered, counted)

        readers = [(point, partial(keep, layer)) for layer, point in enumerate(points)]
        with hooked_pass(model, targets, parts, readers, counted=targets.at, reporting=reporting) as batches:
            for batch in batches:
                add(batch)
        return both

    sums, counts = all_reduce_sum_(in_parts(measure, model, targets.at, batch_size=batch_size))
    if not sums.isfinite().all():
        raise logits_not_finite(model, targets, passes(model, targets.at, batch_size))
    return tuple(DocumentSums(NAMES, *of_layer) for of_layer in zip(sums, counts, strict=True))
