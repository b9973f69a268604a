"""How far the `value` and the `pre_out` choices agree, counted in pre-out dimensions.

A value head serves a group of query heads. Its dimension d reaches the output through dimension d of every one of
them, so pruning value (layer, group, d) is pruning pre_out (layer, each head of the group, d), and that is what a value
dimension is compared as. Where each query head has its own value head, the two correspond one to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from dissect.base.errors import DissectError
from dissect.explorer.choice import Evidence, Settings, choose_site
from dissect.scoring.masks import over_heads

PAIR = ("value", "pre_out")


@dataclass(frozen=True)
class Agreement:
    """Pre-out dimensions that one choice or both reach, a count a layer.

    Attributes:
        both: Chosen as `pre_out`, and reached by a chosen `value` dimension.
        only_value: Reached by a chosen `value` dimension alone.
        only_pre_out: Chosen as `pre_out` alone.
        group: Query heads that a value head serves.
    """

    both: tuple[int, ...]
    only_value: tuple[int, ...]
    only_pre_out: tuple[int, ...]
    group: int

    @property
    def n_both(self) -> int:
        """Dimensions in both choices."""
        return sum(self.both)

    @property
    def n_either(self) -> int:
        """Dimensions in at least one of them."""
        return sum(self.both) + sum(self.only_value) + sum(self.only_pre_out)

    @property
    def jaccard(self) -> float:
        """In both / in either; 1 where there is none in either."""
        return self.n_both / self.n_either if self.n_either else 1.0


def agreement(evidence: Evidence, settings: Settings) -> Agreement:
    """Compare what the settings choose at `value` with what they choose at `pre_out`.

    Raises:
        DissectError: A site of the two was not collected, or refuses the settings (see `choose`).
    """
    missing = [site for site in PAIR if site not in evidence.sites]
    if missing:
        raise DissectError(f"no statistics of site {' and '.join(missing)}: open it with sites that include them")
    value, pre_out = (choose_site(evidence, settings, site)[site] for site in PAIR)
    return compare(value, pre_out)


def compare(value: Bool[Tensor, "layer group d_head"], pre_out: Bool[Tensor, "layer head d_head"]) -> Agreement:
    """Count by layer what two masks have in common."""
    reached = over_heads(value, pre_out.shape[1])
    counts = (_by_layer(part) for part in (reached & pre_out, reached & ~pre_out, pre_out & ~reached))
    return Agreement(*counts, group=pre_out.shape[1] // value.shape[1])


def _by_layer(mask: Tensor) -> tuple[int, ...]:
    return tuple(torch.count_nonzero(mask.flatten(1), dim=1).tolist())
