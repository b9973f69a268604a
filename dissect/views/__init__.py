"""Plotly figures of runs and scores, and the report page. Nothing here runs a model or computes a result.

Every figure takes `theme="light"` or `"dark"`; forget and retain have the same colours everywhere.
"""

from dissect.views.atlas_figure import atlas_figure
from dissect.views.benchmarks import benchmarks
from dissect.views.calibration import calibration
from dissect.views.compare import compare
from dissect.views.curves import curves
from dissect.views.dashboard import dashboard
from dissect.views.frontier import frontier
from dissect.views.importance import importance
from dissect.views.in_context import in_context
from dissect.views.inside import inside
from dissect.views.overlap import overlap
from dissect.views.perplexity import perplexity
from dissect.views.pruned_by_layer import pruned_by_layer
from dissect.views.quantization import quantization
from dissect.views.regrowth import regrowth
from dissect.views.relearning import relearning
from dissect.views.specialization import specialization
from dissect.views.stability_figure import stability_figure
from dissect.views.tuning import tuning
from dissect.views.write_atlas import write_atlas
from dissect.views.write_attack import write_attack
from dissect.views.write_figures import write_figures
from dissect.views.write_page import write_page
from dissect.views.write_relearning import write_relearning
from dissect.views.write_report import write_report

__all__ = [
    "atlas_figure",
    "benchmarks",
    "calibration",
    "compare",
    "curves",
    "dashboard",
    "frontier",
    "importance",
    "in_context",
    "inside",
    "overlap",
    "perplexity",
    "pruned_by_layer",
    "quantization",
    "regrowth",
    "relearning",
    "specialization",
    "stability_figure",
    "tuning",
    "write_atlas",
    "write_attack",
    "write_figures",
    "write_page",
    "write_relearning",
    "write_report",
]
