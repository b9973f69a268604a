"""Candidate modules: clusters of units whose importance is spread over corpora alike."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor

from dissect.scoring.entropy import Entropy

NO_MODULE = -1  # of a unit that is not active
DOMINANT = 0.5  # a corpus is in a module's name where its share is at least that part of the largest share
ALL = "all"


def find_modules(
    spread: Entropy, clusters: int | None = None, seed: int = 0
) -> tuple[Int16[Tensor, " layer *unit"], tuple[str, ...]]:
    """The number of each unit's module, -1 for units that are not active, and the names of the modules.

    They are clusters by k-means (scipy's, begun as k-means++ does) of the shares p' of the active units. A module is
    named after the corpora that have at least half of the largest share in its centre. Clusters of one name are one
    module, so that their number hardly depends on how many are looked for. Modules of few corpora come first.

    Args:
        spread: The units.
        clusters: How many clusters to look for; by default twice as many as there are corpora.
        seed: Seed of the centres that k-means begins with.
    """
    active = spread.active
    numbers = torch.full(active.shape, NO_MODULE, dtype=torch.int16)
    if not active.any():
        return numbers, ()
    centres, labels = _k_means(spread.shares[:, active].T.numpy(), clusters or 2 * len(spread.corpora), seed)
    dominant = [tuple(np.flatnonzero(centre >= DOMINANT * centre.max()).tolist()) for centre in centres]
    modules = sorted({dominant[label] for label in np.unique(labels)}, key=lambda places: (len(places), places))
    numbers[active] = torch.tensor([modules.index(dominant[label]) for label in labels], dtype=torch.int16)
    return numbers, tuple(_name(places, spread.corpora) for places in modules)


def _k_means(
    points: Float[np.ndarray, "unit corpus"], count: int, seed: int
) -> tuple[Float[np.ndarray, "cluster corpus"], Int[np.ndarray, " unit"]]:
    from scipy.cluster.vq import kmeans2  # takes a while to import

    count = min(count, len(np.unique(points, axis=0)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")  # it is no module then
        return kmeans2(points, count, iter=100, minit="++", rng=seed)


def _name(places: tuple[int, ...], corpora: tuple[str, ...]) -> str:
    return ALL if len(places) == len(corpora) else " + ".join(corpora[place] for place in places)
