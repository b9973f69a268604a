"""The units that the controls choose, from statistics alone: no model, no forward pass, no widget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dissect.backend.sites import SITES
from dissect.base.options import Value
from dissect.scoring.importance import IMPORTANCE
from dissect.scoring.masks import Mask
from dissect.scoring.scores import SiteScores, score
from dissect.scoring.stats import Stats

Direction = Literal["forget", "retain"]


@dataclass(frozen=True)
class Settings:
    """The settings of the controls.

    Attributes:
        site: The site whose units are chosen.
        importance: A name of `IMPORTANCE`.
        eps: Added to the importance to the kept side; None for the default of the site.
        fraction: The fraction of the site's units that is chosen, in (0, 1].
        value: What a pruned unit is set to: zero, or its mean on the kept side.
        direction: The side to prune for: `forget`, or `retain` for the reverse.
        strength: How strongly the chosen units are cut, in [0, 1]: 1 leaves nothing of them, 0 all.
    """

    site: str
    importance: str = "abs"
    eps: float | None = None
    fraction: float = 0.02
    value: Value = "zero"
    direction: Direction = "forget"
    strength: float = 1.0

    @property
    def gain(self) -> float:
        """The fraction that is left of a chosen unit."""
        return 1 - self.strength

    @property
    def series(self) -> tuple[str, str, float | None, Value, Direction, float]:
        """All settings but the fraction: points that share them lie on one curve."""
        return self.site, self.importance, self.eps, self.value, self.direction, self.strength

    @property
    def label(self) -> str:
        """A short name of the series."""
        ablation, direction = ", mean ablation" * (self.value == "mean"), ", reversed" * (self.direction == "retain")
        strength = f", strength {self.strength:g}" * (self.strength < 1)
        return f"{self.site} {self.importance}{ablation}{direction}{strength}"


@dataclass(frozen=True, eq=False)
class Evidence:
    """The statistics of the unpruned model, from which units are chosen.

    Attributes:
        forget: Statistics on the forget data set.
        retain: Statistics on the retain data set.
    """

    forget: Stats
    retain: Stats

    @property
    def sites(self) -> list[str]:
        """Sites that both sides have statistics of, in the order of `SITES`."""
        shared = set(self.forget) & set(self.retain)
        return [site for site in SITES if site in shared]

    @property
    def importances(self) -> list[str]:
        """Importances that both sides have the moments for, and of which a ratio can be the score."""
        sides = [side[site] for side in (self.forget, self.retain) for site in self.sites]
        return [
            name
            for name, importance in IMPORTANCE.items()
            if not importance.signed and all(set(importance.moments) <= set(stats.moments) for stats in sides)
        ]

    def roles(self, direction: Direction) -> tuple[Stats, Stats]:
        """The statistics of the side to prune for, and of the kept side."""
        return (self.forget, self.retain) if direction == "forget" else (self.retain, self.forget)


@dataclass(frozen=True, eq=False)
class Choice:
    """The units that the settings choose.

    Attributes:
        settings: The settings.
        scores: The site's scores; their `forget` is the side to prune for, as `settings.direction` says.
        mask: The units with the highest scores.
    """

    settings: Settings
    scores: SiteScores
    mask: Mask

    @property
    def per_layer(self) -> list[int]:
        """Number of chosen units in each layer."""
        return self.mask.per_layer()

    @property
    def threshold(self) -> float:
        """The lowest score of a chosen unit."""
        return float(self.scores.values[self.mask[self.settings.site]].min())

    def importances(self) -> tuple[np.ndarray, np.ndarray]:
        """Importance of every unit that there is to the forget and to the retain data set in either direction."""
        sides = (self.scores.forget, self.scores.retain)
        forget, retain = sides if self.settings.direction == "forget" else sides[::-1]
        return forget[self.scores.there].numpy(), retain[self.scores.there].numpy()

    @property
    def n_layers(self) -> int:
        """How many layers have the site."""
        return int(self.scores.there.flatten(1).any(1).sum())


def choose(evidence: Evidence, settings: Settings) -> Choice:
    """Score the site's units and choose the highest.

    Raises:
        DissectError: As in `dissect.score` and `Scores.top`: importance `freq` on an attention site, a fraction too
            small to choose a unit, or statistics that lack what the importance needs.
    """
    scores = _scores(evidence, settings, settings.site, settings.eps)
    return Choice(settings, scores, scores.top(settings.fraction))


def choose_site(evidence: Evidence, settings: Settings, site: str) -> Mask:
    """The choice of the same settings at an attention site; the eps of another kind of site is replaced by its default.

    Raises:
        DissectError: As in `choose`.
    """
    eps = settings.eps if SITES[settings.site].signed else None
    return _scores(evidence, settings, site, eps).top(settings.fraction)


def _scores(evidence: Evidence, settings: Settings, site: str, eps: float | None) -> SiteScores:
    prune, keep = evidence.roles(settings.direction)
    return score(forget=prune, retain=keep, importance=settings.importance, eps=eps, sites=site)[site]


def describe(choice: Choice) -> str:
    """A choice in one line."""
    settings, layers = choice.settings, sum(count > 0 for count in choice.per_layer)
    return (
        f"{len(choice.mask):,} of {choice.mask.total:,} {settings.site} units chosen "
        f"({100 * len(choice.mask) / choice.mask.total:.3g}%), in {layers} of {choice.n_layers} layers, "
        f"score ≥ {choice.threshold:.3g}"
    )
