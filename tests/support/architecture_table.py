"""The table of architectures in the docs: its rows are what was tried, and a test compares them with the page.

`python -m tests.support.architecture_table` writes the rows anew. It fills the column of the TransformerLens that is
installed and keeps that of the other version, so run it with both.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import torch

from dissect import DissectError, Mask, ablated, bake, export, load_model
from dissect.backend.sites import partial_layers, sites_of
from dissect.models.architectures import ARCHITECTURES as HOOKED
from tests.support import tiny
from tests.support.architectures import ARCHITECTURES

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "architectures.md"
OF_VERSION = {3: "bridge, TransformerLens 3", 4: "bridge, TransformerLens 4"}
PARTIAL = "in some layers"  # a column: sites that `skip_layers=True` opens
COLUMNS = ("architecture", "HookedTransformer", *OF_VERSION.values(), "sites", PARTIAL)
INSTALLED = OF_VERSION[int(importlib.metadata.version("transformer-lens").partition(".")[0])]
REASONS = {
    "logits differ from transformers'": "no: other logits",
    "unknown architecture": "no: no adapter",
    "bridge cannot run": "no: fails",
}
SAME = 1e-4  # of the largest logit; and of the smallest effect of a site's cut
LEAST = 1e-2  # the effect of a cut, of the largest logit
TOKENS = torch.randint(10, tiny.VOCAB, (2, 15), generator=torch.Generator().manual_seed(1))

Row = dict[str, str]  # a cell for each of `COLUMNS`


def row_of(name: str, folder: Path) -> Row:
    """The cells of an architecture that can be tried here. What is wrong is an AssertionError, not a cell.

    Args:
        name: Of `ARCHITECTURES`.
        folder: A new folder for the exported model.
    """
    hf_model = ARCHITECTURES[name]()
    kind = type(hf_model).__name__
    row = {"architecture": f"`{kind}`", "HookedTransformer": "yes" if kind in HOOKED else "no"}
    try:
        model = load_model(hf_model, bridge=True, skip_layers=True)
    except DissectError as error:
        return row | {INSTALLED: _reason(error)}
    check_logits(model, hf_model)
    sites = check_cuts(model, type(hf_model), folder)
    partial = [site for site in sites if site in partial_layers(model, sites)]
    model.skip_layers = False
    assert sites_of(model) == [site for site in sites if site not in partial]  # what a model has by default
    return row | {INSTALLED: "yes", "sites": _listed(sites_of(model)), PARTIAL: _listed(partial)}


def _listed(sites: list[str]) -> str:
    return ", ".join(f"`{site}`" for site in sites) or "none"


def _reason(error: DissectError) -> str:
    return next(cell for text, cell in REASONS.items() if text in str(error))


def check_logits(model: Any, hf_model: Any) -> None:
    """Compare the logits with those of transformers."""
    theirs = logits(hf_model)
    assert size(logits(model) - theirs) < SAME * size(theirs)


def check_cuts(model: Any, kind: Any, folder: Path) -> list[str]:
    """The sites of a bridge, each cut by hooks and in the weights, and all together in an exported folder too.

    Each cut has an effect, and the differences between them are far smaller.
    """
    sites, before = sites_of(model), logits(model)
    masks = [some_units(model, site) for site in sites]
    effects = [check_cut(model, mask, before) for mask in masks]
    assert torch.equal(logits(model), before)
    assert all(effect > LEAST * size(before) for effect in effects), effects
    if sites:
        mask = reduce(or_, masks)
        with ablated(model, mask):
            by_hooks = logits(model)
        bake(model, mask)
        assert size(logits(model) - by_hooks) < SAME * min(effects)
        exported = kind.from_pretrained(export(model, folder).path, dtype=torch.float32).eval()
        assert size(logits(exported) - by_hooks) < SAME * min(effects)
    return sites


def check_cut(model: Any, mask: Mask, before: torch.Tensor) -> float:
    """The effect of a cut on the logits, the same by hooks and in the weights, which are restored."""
    with ablated(model, mask):
        by_hooks = logits(model)
    edit = bake(model, mask)
    in_weights = logits(model)
    edit.restore()
    effect = size(by_hooks - before)
    assert size(in_weights - by_hooks) < SAME * effect
    return effect


def some_units(model: Any, site: str) -> Mask:
    """A fifth of a site's units, in all layers that have it."""
    none = Mask.none(model, site)
    pruned = torch.rand(none[site].shape, generator=torch.Generator().manual_seed(1)) < 0.2
    last = int(none.there(site).flatten(1).any(1).nonzero().max())
    pruned[last].flatten()[0] = True
    return Mask({site: pruned & none.there(site)}, none.layers)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Of a few windows, by a bridge or by transformers."""
    found = model(TOKENS)
    return getattr(found, "logits", found)


def size(difference: torch.Tensor) -> float:
    """The largest number, whatever its sign."""
    return difference.abs().max().item()


def written_rows() -> list[Row]:
    """The rows of the page."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [dict(zip(COLUMNS, (cell.strip() for cell in line.strip("|").split("|")), strict=True)) for line in lines]


def write_rows(rows: list[Row]) -> None:
    """Put the table of `rows` where the page has one."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    table = [i for i, line in enumerate(lines) if line.startswith("|")]
    cells = [COLUMNS, ["---"] * len(COLUMNS), *([row.get(column, "?") for column in COLUMNS] for row in rows)]
    lines[table[0] : table[-1] + 1] = [f"| {' | '.join(line)} |" for line in cells]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Try every architecture and write the page."""
    written, rows = {row["architecture"]: row for row in written_rows()}, []
    for name in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            row = row_of(name, Path(folder) / "exported")
        rows.append(written.get(row["architecture"], {}) | row)
        print(*rows[-1].values(), sep=" | ", file=sys.stderr)
    write_rows(rows)


if __name__ == "__main__":
    main()
