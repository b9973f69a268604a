"""Text by name, as documents: the corpora `dissect` knows, anyone's files, and any data set on the hub."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dissect.base.checks import as_text_or_path
from dissect.base.errors import DissectError, shown, unknown
from dissect.data.local import is_path_like, local_source
from dissect.data.offline import presidential_messages, python_stdlib, torch_headers, wiki_introductions
from dissect.data.sources import Source, TextFiles, Texts
from dissect.data.splits import SPLITS, one_side
from dissect.data.tables import HubError, Row, Table, wikitext_articles

# The column is float32, where 0.2 is a little more than 0.2.
ROUNDING = 1e-6


def not_github(row: Row) -> bool:
    """True for a row of the Pile that is not from its GitHub part."""
    return row["meta"]["pile_set_name"] != "Github"


def is_python(row: Row) -> bool:
    """True for a file in Python."""
    return row["language"] == "Python"


def is_civil(row: Row) -> bool:
    """True for a comment that at most a fifth of its readers called toxic."""
    return row["toxicity"] is not None and row["toxicity"] <= 0.2 + ROUNDING


def is_toxic(row: Row) -> bool:
    """True for a comment that at least four fifths of its readers called toxic."""
    return row["toxicity"] is not None and row["toxicity"] >= 0.8 - ROUNDING


PILE = "monology/pile-uncopyrighted"
GITHUB_CODE = "hf://datasets/codeparrot/github-code-clean/data/train-*.parquet"  # its loading script no longer runs
CIVIL_COMMENTS = "google/civil_comments"
COMMENTS_BUFFER = 50_000  # short rows in two files: a small buffer would give every seed the same ones


@dataclass(frozen=True)
class Corpus:
    """A corpus with a name.

    Attributes:
        source: Gives its documents.
        about: What it is and under which licence, in one line.
    """

    source: Source
    about: str

    @property
    def offline(self) -> bool:
        """True where nothing of it comes from the hub."""
        return not (isinstance(self.source, Table) and self.source.repo)


CORPORA: dict[str, Corpus] = {
    "python-stdlib": Corpus(TextFiles(python_stdlib), "the running Python's standard library; PSF licence"),
    "torch-headers": Corpus(TextFiles(torch_headers), "C++ and CUDA headers inside torch; BSD and similar"),
    "wiki-en": Corpus(Texts(wiki_introductions), "10,033 introductions of English Wikipedia; CC BY-SA"),
    "sotu": Corpus(TextFiles(presidential_messages), "messages of US presidents, 1790 on; public domain"),
    "pile": Corpus(Table(PILE, keep=not_github), "the Pile without GitHub, for use against code"),
    "pile-all": Corpus(Table(PILE), "the Pile, GitHub included, for use against anything but code"),
    "code": Corpus(Table("parquet", "code", data_files=GITHUB_CODE), "GitHub files in 30 languages"),
    "python": Corpus(Table("parquet", "code", data_files=GITHUB_CODE, keep=is_python), "GitHub files in Python"),
    "civil": Corpus(Table(CIVIL_COMMENTS, keep=is_civil, buffer=COMMENTS_BUFFER), "comments, toxicity <= 0.2; CC0"),
    "toxic": Corpus(Table(CIVIL_COMMENTS, keep=is_toxic, buffer=COMMENTS_BUFFER), "comments, toxicity >= 0.8; CC0"),
    "wikitext": Corpus(
        Table("Salesforce/wikitext", config="wikitext-103-raw-v1", group=wikitext_articles),
        "good and featured articles of English Wikipedia, 2016; CC BY-SA",
    ),
}

FORMS = (
    "a .txt, .jsonl, .json or .parquet file, folder or glob, as path[:column]",
    "hf:owner/name[/config][:column]",
)


def find_source(corpus: str | os.PathLike[str]) -> Source:
    """What `corpus` stands for: a name in `CORPORA`, local files, or `hf:` and a hub data set.

    Raises:
        DissectError: It is none of these; the message lists the names and the forms.
    """
    spec = as_text_or_path("corpus", corpus)
    if spec in CORPORA:
        return CORPORA[spec].source
    try:
        source = hub_source(spec) if spec.startswith("hf:") else local_source(spec)
    except (OSError, RuntimeError, re.error) as error:  # path too long, unknown home, bad glob
        raise DissectError(f"corpus {shown(spec)} cannot be looked for: {error}") from error
    if source is not None:
        return source
    if is_path_like(spec):
        raise DissectError(
            f"no file matches {shown(spec)}; a corpus is a name ({', '.join(CORPORA)}), or {', or '.join(FORMS)}"
        )
    raise unknown("corpus", spec, [*CORPORA, *FORMS])


def hub_source(spec: str) -> Table:
    """The hub data set that `hf:owner/name[/config][:column]` names, column `text` if it does not say.

    Raises:
        DissectError: It is not of this form.
    """
    path, _, column = spec.removeprefix("hf:").partition(":")
    parts = path.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise DissectError(f"a hub corpus must look like hf:owner/name[/config][:column], got {spec!r}")
    return Table("/".join(parts[:2]), column or "text", config=parts[2] if len(parts) == 3 else None)


def read_documents(
    corpus: str | os.PathLike[str], *, split: str, seed: int = 0, tally: Counter[str] | None = None
) -> Iterator[str]:
    """The documents of one split of a corpus, in an order that `seed` decides.

    Args:
        corpus: A name in `CORPORA`; a local `.txt`, `.jsonl`, `.json` or `.parquet` file, folder or glob as
            `path` or `path:column`; a hub data set as `hf:owner/name[/config][:column]`. The column is `text` if not
            given. Each text file is a document, but a single one is split into paragraphs at blank lines. Text and
            JSON may be compressed (`.gz`, `.zst`). It is UTF-8, or what a byte-order mark says; what is not has U+FFFD
            instead (a `Repaired` document).
        split: "train" or "test". A document's own text decides which it belongs to (see `splits.side`).
        seed: Decides the order. Local text files are shuffled completely, everything else through a buffer.
        tally: Counts, if given, what was read: `empty`, `duplicate`, `other split`, `kept`.

    Raises:
        DissectError: No such corpus or split; the text is not there, cannot be read or has no such column.
    """
    source = find_source(corpus)
    if not isinstance(split, str) or split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return one_side(_naming_offline(source.documents(seed)), split, Counter() if tally is None else tally)


def _naming_offline(documents: Iterator[str | None]) -> Iterator[str | None]:
    """The same documents; an error of the hub's also says what works without it."""
    try:
        yield from documents
    except HubError as error:
        offline = ", ".join(name for name, corpus in CORPORA.items() if corpus.offline)
        raise HubError(f"{error} (these work offline: {offline}, and local files)") from error
    except OSError as error:
        raise DissectError(f"cannot read a file of the corpus: {error}") from error
