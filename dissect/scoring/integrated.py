"""Integrated gradients of units: the gradient not where a layer's activations are, but on the way there from zero.

A gradient says what the next small change does, and a cut is a large one. For each layer by itself, while the others
are as they are, z ∫₀¹ g(α z) dα is summed over positions. Summed over the layer's units too, that is exactly how the
loss changes from all of them cut to none (Sundararajan et al. 1703.01365; of a layer, Dhamdhere et al. 1805.12233).
The integral is a sum over the nodes of Gauss and Legendre, and each node is a pass forward and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from dissect.backend.hooks import hooked
from dissect.base.progress import hidden

N_STEPS = 4
MOST_NODES = 64  # beyond, numpy says, its nodes may be less exact


def along_paths(
    readers: Iterable[tuple[Any, Callable[..., None]]], n_steps: int, *, progress: bool
) -> Iterator[tuple[Any, Callable[..., None], float]]:
    """Each layer's hook point and reader at each node, to read a pass with while its activations are scaled.

    The third is what the products of a pass (of α z, as it is scaled, and its gradient) are to be multiplied by: the
    node's weight divided by α.
    """
    nodes, weights = (values.tolist() for values in np.polynomial.legendre.leggauss(n_steps))  # on [-1, 1]
    shown = {"desc": "integrated gradients", "unit": "layer", "leave": False}
    for point, reader in tqdm(list(readers), **shown, disable=hidden(progress)):
        for node, weight in zip(nodes, weights, strict=True):
            share = (node + 1) / 2
            with hooked([(point, partial(torch.mul, other=share))]):
                yield point, reader, weight / 2 / share
