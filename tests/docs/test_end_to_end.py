"""The main path on a real model and real text, as the README gives it."""

from __future__ import annotations

import os

import pytest
import torch

import dissect
from tests.support.models import our_hooks


@pytest.fixture(scope="module")
def model():
    threads = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    yield dissect.load_model("smollm2-135m")
    torch.set_num_threads(threads)


def run_of(model, out, selector):
    return dissect.prune(
        model,
        forget="python-stdlib",
        retain="wiki-en",
        steps=4,
        tokens=4_000,
        context=256,
        selector=selector,
        out=out,
        progress=False,
    )


def test_code_neurons_can_be_cut_from_a_real_model(model, tmp_path):
    prompt = model.tokenizer("def add(a, b):\n    return", return_tensors="pt").input_ids
    before = model(prompt)
    selective, random = (run_of(model, tmp_path / selector, selector) for selector in ("score", "random"))
    assert selective.summary().difference > 0.40
    for forget, retain in zip(random.drops("forget"), random.drops("retain"), strict=True):
        assert abs(forget - retain) < 0.10
    assert selective.history[0].metrics == random.history[0].metrics
    assert our_hooks(model) == 0
    assert torch.equal(model(prompt), before)
    page = dissect.write_report([selective, random], tmp_path / "page.html")
    assert 1_000_000 < page.stat().st_size < 6_000_000
