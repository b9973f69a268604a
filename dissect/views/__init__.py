"""Plotly figures and the HTML report. Nothing here runs a model or computes a result."""

from dissect.views.figure import run_figure
from dissect.views.report import write_report

__all__ = ["run_figure", "write_report"]
