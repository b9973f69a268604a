"""The pages that are read as documentation, and the examples on them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pages"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(FOLDER.rglob("*.md"))]
NOT_RUN = re.compile(r'title="not run: (?P<reason>.+)"')


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Example:
    """A fenced block.

    Attributes:
        page: The file it is in.
        line: The lines of the page before its code.
        language: The first word after the fence.
        options: What follows that word.
        code: Its text.
    """

    page: Path
    line: int
    language: str
    options: str
    code: str

    @property
    def runs(self) -> bool:
        return not self.options

    def commands(self) -> list[list[str]]:
        """The words of each shell command, comments left out."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def examples(page: Path) -> list[Example]:
    """The fenced and the indented blocks of a page, in order."""
    found = []
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            language, _, options = token.info.partition(" ")
            found.append(Example(page, token.map[0] + 1, language, options, token.content))
    return found
