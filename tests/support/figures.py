"""What the tests of views draw."""

from __future__ import annotations

import torch

from dissect import views
from dissect.scoring.scores import SiteScores

FIGURES = {
    "dashboard": lambda runs, theme: views.dashboard(*runs, theme=theme),
    "curves": lambda runs, theme: views.curves(runs, theme=theme),
    "perplexity": lambda runs, theme: views.perplexity(runs, theme=theme),
    "frontier": lambda runs, theme: views.frontier(runs, theme=theme),
    "compare": lambda runs, theme: views.compare(runs, theme=theme),
    "specialization": lambda runs, theme: views.specialization(runs[0].scores(), runs[0].mask(), theme=theme),
    "pruned_by_layer": lambda runs, theme: views.pruned_by_layer(runs[0], theme=theme),
    "importance": lambda runs, theme: views.importance(runs[0].scores()["mlp"], theme=theme, fraction=0.1),
    "overlap": lambda runs, theme: views.overlap({"a": runs[0].mask()}, theme=theme),
}


def random_scores(n_layers=4, n_units=50, seed=0, site="mlp"):
    generator = torch.Generator().manual_seed(seed)
    forget, retain = (torch.rand(n_layers, n_units, generator=generator, dtype=torch.float64) for _ in range(2))
    return SiteScores(site, "abs", 1e-3, forget / (retain + 1e-3), forget, retain)


def signed_scores(n_layers=4, n_units=50, seed=0):
    """Scores of importances of either sign, most of them small and a few far larger."""
    generator = torch.Generator().manual_seed(seed)
    forget, retain = (
        1e-5 * torch.randn(n_layers, n_units, generator=generator, dtype=torch.float64) ** 5 for _ in range(2)
    )
    return SiteScores("mlp", "attribution", 1e-3, forget - retain, forget, retain, "difference")
