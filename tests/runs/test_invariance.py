"""Results do not depend on how the work is dealt out: on batch size, threads or the order of windows.

The limits are those of the page of guarantees ("Machine and batching").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import dissect
from dissect import Windows
from dissect.scoring.masks import jaccard
from dissect.scoring.moments import SUMS
from tests.support.models import tiny_transformer

SITES = ("mlp", "value", "pre_out")
# Sums as a part of the largest of their layer; loss in nats; accuracies absolute; Jaccard index of the top tenth.
STATED = {
    torch.float32: {"stats": 1e-6, "loss": 1e-6, "accuracy": 0.001, "jaccard": 0.98},
    torch.bfloat16: {"stats": 0.02, "loss": 0.01, "accuracy": 0.01, "jaccard": 0.9},
}


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def text(seed: int, n_windows: int = 60, context: int = 33) -> Windows:
    """Tokens of which low ones are likelier the lower the seed, so that there is something to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    weights = 1 / torch.arange(1, 51).float() ** (1 - seed)
    return Windows.from_tokens(
        torch.multinomial(weights, n_windows * context, True, generator=generator).view(-1, context)
    )


SIDES = {"forget": text(0), "retain": text(1)}


def shuffled(windows: Windows) -> Windows:
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(5))
    return Windows(windows.tokens[order], windows.keep[order])


def results(model, sides=SIDES, batch_size=None):
    stats = {
        side: dissect.collect(model, windows, sites=SITES, batch_size=batch_size) for side, windows in sides.items()
    }
    metrics = {side: dissect.evaluate(model, windows, batch_size=batch_size) for side, windows in sides.items()}
    scores = dissect.score(**stats)
    return stats, metrics, {site: scores[site].top(0.1) for site in SITES}


def distances(one, other) -> dict[str, float]:
    """The largest difference of each kind between two results."""
    stats = [
        ((a[site][name] - b[site][name]).abs().flatten(1) / a[site][name].abs().flatten(1).amax(1, keepdim=True)).max()
        for a, b in zip(one[0].values(), other[0].values(), strict=True)
        for site in SITES
        for name in SUMS
    ]
    metrics = [
        (name, abs(value - other[1][side][name])) for side, values in one[1].items() for name, value in values.items()
    ]
    return {
        "stats": max(stats).item(),
        "loss": max(size for name, size in metrics if name == "loss"),
        "accuracy": max(size for name, size in metrics if name.startswith("top")),
        "jaccard": min(jaccard(mask, other[2][site]) for site, mask in one[2].items()),
    }


def wide_model(dtype):
    return tiny_transformer(d_model=64, d_mlp=256, n_heads=4, d_head=16).to(dtype)


WAYS = {
    "batches of 1": lambda model: results(model, batch_size=1),
    "batches of 7": lambda model: results(model, batch_size=7),
    "one batch": lambda model: results(model, batch_size=60),
    "another order": lambda model: results(model, {side: shuffled(windows) for side, windows in SIDES.items()}),
}


@pytest.mark.parametrize("dtype", STATED)
def test_results_do_not_depend_on_how_the_work_is_dealt_out(dtype):
    model = wide_model(dtype)
    expected = results(model)
    found = {way: distances(expected, do(model)) for way, do in WAYS.items()}
    with threads(2):
        found["two threads"] = distances(expected, results(model))
    for way, sizes in found.items():
        assert_within(STATED[dtype], sizes, way)


def test_bfloat16_is_as_close_to_float32():
    exact, rounded = (results(wide_model(dtype)) for dtype in STATED)
    sizes = distances(exact, rounded)
    assert_within(STATED[torch.bfloat16], sizes, "bfloat16")
    assert sizes["stats"] > 100 * STATED[torch.float32]["stats"]  # it was another dtype


def assert_within(stated, sizes, way):
    for kind, limit in stated.items():
        within = sizes[kind] >= limit if kind == "jaccard" else sizes[kind] <= limit
        assert within, (way, kind, sizes[kind])


def test_another_text_is_further_away():
    """The distances do tell results apart."""
    model = wide_model(torch.float32)
    other = distances(results(model), results(model, {"forget": text(0), "retain": text(2)}))
    assert other["stats"] > 0.01
    assert other["loss"] > 0.01
    assert other["jaccard"] < 0.9
