"""The commands by name: one function each. What is slow to import, they import where they use it: help is quick."""

from __future__ import annotations

from dissect.cli.of_evidence import attack, benchmark, in_context, inside, quantize, relearn
from dissect.cli.of_grids import compare, cost, reproduce
from dissect.cli.of_models import models
from dissect.cli.of_runs import demo, explore, export, prune, report, rerun
from dissect.cli.of_studies import atlas, stability, tune

COMMANDS = {
    "prune": prune,
    "compare": compare,
    "reproduce": reproduce,
    "cost": cost,
    "export": export,
    "report": report,
    "explore": explore,
    "rerun": rerun,
    "relearn": relearn,
    "stability": stability,
    "atlas": atlas,
    "benchmark": benchmark,
    "quantize": quantize,
    "in-context": in_context,
    "attack": attack,
    "inside": inside,
    "tune": tune,
    "models": models,
    "demo": demo,
}
