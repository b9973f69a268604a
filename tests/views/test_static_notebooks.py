"""A notebook as a page without Jupyter: figures are drawn, the explorer says what it is, cards are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from plotly import graph_objects as go
from plotly.io import renderers

import dissect
from dissect import views
from dissect.views import notebook
from dissect.views.notebook import NotebookFigure
from tests.support.browser import CHROMIUM
from tests.support.figures import FIGURES, random_scores

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra notebook)")
HTMLExporter = pytest.importorskip("nbconvert", reason="nbconvert is not installed (extra notebook)").HTMLExporter
NotebookClient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra notebook)").NotebookClient
pytest.importorskip("anywidget", reason="anywidget is not installed (extra notebook)")

ROOT = Path(dissect.__file__).parent.parent
CELLS = [
    f"""
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {str(ROOT)!r})
import dissect
from tests.support.figures import random_scores
from tests.support.models import tiny_transformer
from tests.support.runs import guessable_sides
model, sides, scores = tiny_transformer(), guessable_sides(), random_scores()
""",
    "dissect.explore(model, **sides)",
    "dissect.views.importance(scores, fraction=0.1)",
    "dissect.views.specialization(scores)",
    "figure = dissect.views.overlap({'<i>mine': scores.top(0.1)}); figure.layout.title.text = '&lt;i&gt;mine'; figure",
    "dissect.neuron_card(model, ('mlp', 0, 1), sides['forget'][0], sides['retain'][0], progress=False)",
]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The notebook, run, and its page."""
    folder = tmp_path_factory.mktemp("static")
    new = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    new.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(new, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    page = folder / "run.html"
    page.write_text(HTMLExporter().from_notebook_node(new)[0], encoding="utf-8")
    return new, page


def forms(run, cell):
    return [output.data for output in run.cells[cell].outputs if "data" in output]


def test_plotly_is_in_the_first_figure_only(converted):
    run, _ = converted
    sizes = [len(forms(run, cell)[0]["text/html"]) for cell in (2, 3, 4)]
    assert 1_500_000 < sizes[0] < 2_500_000
    assert max(sizes[1:]) < 50_000
    for cell in (2, 3, 4):
        assert "application/vnd.plotly.v1+json" in forms(run, cell)[0]


def test_an_explorer_and_its_stand_in(converted):
    run, _ = converted
    stand_in, widget = forms(run, 1)[-2:]
    assert "1 of 60 mlp units chosen" in stand_in["text/html"]
    assert stand_in["text/html"].count("<svg") == 1
    assert len(stand_in["text/html"]) < 100_000
    assert set(widget) == {"application/vnd.jupyter.widget-view+json", "text/plain"}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("amd", [False, True])
def test_the_page_shows_everything(converted, amd):
    """Also where RequireJS is, which takes other libraries for itself."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.add_init_script("window.define = () => 0; window.define.amd = {};" if amd else "")
        page.goto(converted[1].as_uri())
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 3", timeout=60_000)
        page.wait_for_function("[...document.querySelectorAll('.js-plotly-plot')].filter(p => p.calcdata).length === 3")
        assert page.locator(".js-plotly-plot path.point").count() == 200
        assert page.locator(".js-plotly-plot .heatmaplayer image").count() == 2
        assert page.locator("text=Interactive figure").count() == 0
        assert page.locator("text=the explorer is a widget").is_visible()
        assert page.locator("svg[aria-label^=Importance]").is_visible()
        assert page.locator(".dissect-card").is_visible()
        assert errors == []
        browser.close()


def test_without_scripts_a_figure_says_what_it_is(converted):
    run, _ = converted
    said = re.sub("<script.*?</script>", "", forms(run, 4)[0]["text/html"], flags=re.DOTALL)
    assert "Interactive figure: &lt;i&gt;mine." in said


@pytest.mark.parametrize("name", FIGURES)
def test_every_view_shows_itself_so(runs, name, monkeypatch):
    figure = FIGURES[name](runs, "light")
    assert isinstance(figure, NotebookFigure)
    monkeypatch.setattr(notebook, "_bringer", ("a cell", "a run of it"))
    monkeypatch.setattr(renderers, "default", "plotly_mimetype")
    assert set(figure._repr_mimebundle_()) == {"application/vnd.plotly.v1+json", "text/html"}
    monkeypatch.setattr(renderers, "default", "json")
    assert set(figure._repr_mimebundle_()) == {"application/json"}  # whoever chose a renderer keeps it


def test_a_figure_of_ones_own_is_not_touched():
    before = json.dumps(sorted(vars(go.Figure)))
    views.importance(random_scores())
    assert json.dumps(sorted(vars(go.Figure))) == before
    assert "_ipython_display_" not in vars(go.Figure)


def test_plotly_comes_again_with_the_cell_that_brought_it(monkeypatch):
    monkeypatch.setattr(notebook, "_bringer", None)
    runs_of_cells = [("a", 1), ("a", 1), ("b", 2), ("a", 3), ("a", 3), ("b", 4)]
    monkeypatch.setattr(notebook, "_running", iter(runs_of_cells).__next__)
    assert [notebook.brings_plotly() for _ in runs_of_cells] == [True, False, False, True, False, False]
    monkeypatch.setattr(notebook, "_bringer", None)
    monkeypatch.setattr(notebook, "_running", iter([(None, 1), (None, 2)]).__next__)
    assert [notebook.brings_plotly() for _ in range(2)] == [True, False]
