"""Plotly figures, neuron cards as HTML, and the report. Nothing here runs a model or computes a result.

Every figure takes `theme="light"` or `"dark"`; forget and retain have the same colours everywhere.
"""

from dissect.views.comparison import compare
from dissect.views.curve import curves
from dissect.views.figure import dashboard
from dissect.views.halves import stability_figure
from dissect.views.jaccard import overlap
from dissect.views.layer_counts import pruned_by_layer
from dissect.views.pages import write_figures, write_page
from dissect.views.perplexities import perplexity
from dissect.views.report import write_report
from dissect.views.scatter import importance
from dissect.views.unit_map import specialization

__all__ = [
    "compare",
    "curves",
    "dashboard",
    "importance",
    "overlap",
    "perplexity",
    "pruned_by_layer",
    "specialization",
    "stability_figure",
    "write_figures",
    "write_page",
    "write_report",
]
