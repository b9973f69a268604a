"""The demonstration: from pruning to the report on a real model, with text from Python packages."""

from __future__ import annotations

from pathlib import Path

from dissect.base.checks import as_path
from dissect.base.progress import say
from dissect.cards.of_run import top_cards
from dissect.runs.config import PruneConfig
from dissect.runs.inputs import LastModel
from dissect.runs.prune import run_config
from dissect.runs.run import Run
from dissect.views.write_report import write_report

TOKENS, CONTEXT, STEPS, CARDS = 4_000, 256, 8, 4


def run_demo(out: Path) -> tuple[list[Run], Path]:
    """Prune SmolLM2's feed-forward neurons that matter for Python and not for prose, and as many at random.

    Returns:
        The selective and the random run below `out`, and the path of the page about both.
    """
    out, load, runs = as_path("out", out), LastModel(), []
    for selector in ("score", "random"):
        config = PruneConfig(
            model="smollm2-135m",
            forget="python-stdlib",
            retain="wiki-en",
            selector=selector,
            tokens=TOKENS,
            context=CONTEXT,
            steps=STEPS,
        )
        say(f"{selector}: {STEPS} steps of {config.fraction:.0%}, {TOKENS:,} predictions a corpus")
        runs.append(run_config(config, load=load, out=out / selector))
    say(f"cards of {CARDS} neurons")
    cards = top_cards(runs[0], CARDS, model=load(runs[0].config))
    return runs, write_report(runs, out / "report.html", cards)
