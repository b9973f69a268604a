"""What a setting of the controls chooses, from statistics alone: no model, no forward pass, no widget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dissect.backend.sites import SITES
from dissect.base.options import Value
from dissect.scoring.masks import Mask
from dissect.scoring.scores import SiteScores, score
from dissect.scoring.stats import Stats

Direction = Literal["forget", "retain"]


@dataclass(frozen=True)
class Settings:
    """Where the controls stand.

    Attributes:
        site: The site whose units are chosen.
        importance: A name of `IMPORTANCE`.
        eps: Added to the importance to the side that is kept; None for the site's own.
        fraction: How many units are chosen, as a part of all units of the site, in (0, 1].
        value: What a pruned unit is set to: zero, or its mean on the side that is kept.
        direction: The side that is to lose: `forget`, or `retain` for the reverse.
    """

    site: str
    importance: str = "abs"
    eps: float | None = None
    fraction: float = 0.02
    value: Value = "zero"
    direction: Direction = "forget"

    @property
    def series(self) -> tuple[str, str, float | None, Value, Direction]:
        """All but the fraction: points that share it lie on one curve."""
        return self.site, self.importance, self.eps, self.value, self.direction

    @property
    def label(self) -> str:
        """The series in a few words."""
        words = [self.site, self.importance]
        words += ["to the mean"] * (self.value == "mean") + ["reversed"] * (self.direction == "retain")
        return " ".join(words)


@dataclass(frozen=True, eq=False)
class Evidence:
    """The statistics of the whole model that choices are made from.

    Attributes:
        forget: Those of the forget data set.
        retain: Those of the retain data set.
    """

    forget: Stats
    retain: Stats

    @property
    def sites(self) -> list[str]:
        """Sites that both sides have statistics of, in the order of `SITES`."""
        shared = set(self.forget) & set(self.retain)
        return [site for site in SITES if site in shared]

    def roles(self, direction: Direction) -> tuple[Stats, Stats]:
        """The statistics of the side that is to lose, and of the side that is to be kept."""
        return (self.forget, self.retain) if direction == "forget" else (self.retain, self.forget)


@dataclass(frozen=True, eq=False)
class Choice:
    """The units that some settings choose.

    Attributes:
        settings: The settings.
        scores: The site's scores; their `forget` is the side that is to lose, as `settings.direction` says.
        mask: The highest of them.
    """

    settings: Settings
    scores: SiteScores
    mask: Mask

    @property
    def per_layer(self) -> list[int]:
        """How many units are chosen in each layer."""
        return self.mask.per_layer()

    @property
    def threshold(self) -> float:
        """The lowest score that is chosen."""
        return float(self.scores.values[self.mask[self.settings.site]].min())

    def importances(self) -> tuple[np.ndarray, np.ndarray]:
        """Importance to the forget and to the retain data set, whatever the direction, a number a unit."""
        sides = (self.scores.forget, self.scores.retain)
        forget, retain = sides if self.settings.direction == "forget" else sides[::-1]
        return forget.numpy().flatten(), retain.numpy().flatten()


def choose(evidence: Evidence, settings: Settings) -> Choice:
    """Score the site's units and take the highest.

    Raises:
        DissectError: As `dissect.score` and `Scores.top`: importance `freq` on an attention site, a fraction so
            small that it chooses no unit, statistics without what the importance needs.
    """
    scores = _scores(evidence, settings, settings.site, settings.eps)
    return Choice(settings, scores, scores.top(settings.fraction))


def choose_site(evidence: Evidence, settings: Settings, site: str) -> Mask:
    """What the same settings choose at an attention site; a feed-forward eps is replaced by that site's own.

    Raises:
        DissectError: As `choose`.
    """
    eps = None if settings.site == "mlp" else settings.eps
    return _scores(evidence, settings, site, eps).top(settings.fraction)


def _scores(evidence: Evidence, settings: Settings, site: str, eps: float | None) -> SiteScores:
    lose, keep = evidence.roles(settings.direction)
    return score(forget=lose, retain=keep, importance=settings.importance, eps=eps, sites=site)[site]
