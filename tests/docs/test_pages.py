"""The pages are complete: every public name is in the reference, every page in the menu, every link leads somewhere."""

from __future__ import annotations

import re

import pytest

import dissect
from tests.docs.pages import FOLDER, PAGES, ROOT, examples, name_of

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
LONGEST_README = 130
WIDEST = 94  # columns of an example that the site shows without a scroll bar


def referenced() -> list[str]:
    """The names that the pages of the reference show, without `dissect.`."""
    text = "".join(page.read_text(encoding="utf-8") for page in sorted((FOLDER / "api").glob("*.md")))
    return re.findall(r"^::: dissect\.([\w.]+)$", text, re.M)


def test_every_public_name_is_in_the_reference_once():
    names = [name for name in dissect.__all__ if name != "views"]
    again = [name for name in names if getattr(dissect, name) is getattr(dissect.views, name, None)]
    views = [f"views.{name}" for name in dissect.views.__all__ if name not in again]
    assert sorted(referenced()) == sorted(names + views)


def test_every_page_is_in_the_menu():
    menu = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1]
    for page in [*FOLDER.rglob("*.md"), *(FOLDER / "notebooks").glob("*.ipynb")]:
        assert re.search(rf"[ ]{re.escape(str(page.relative_to(FOLDER)))}$", menu, re.M), page


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_is_left_to_be_filled_in(page):
    """No comment, and no line that is a name for what was to come."""
    text = page.read_text(encoding="utf-8")
    assert "<!--" not in text
    assert not re.search(r"^[A-Z]+_[A-Z_]+$", text, re.M)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", sorted(FOLDER.rglob("*.md")), ids=name_of)
def test_examples_fit_the_width_of_a_page(page):
    for example in examples(page):
        assert max(map(len, example.code.splitlines())) <= WIDEST, example.code
