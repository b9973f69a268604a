"""Where memory is short: half the windows, again and again, or one line that says what to do."""

from __future__ import annotations

import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch

import dissect
from dissect import DissectError
from dissect.backend.memory import within_memory
from dissect.evaluation.evaluate import reference_of
from dissect.explorer.trial import read_on
from tests.support.models import our_hooks, tiny_transformer
from tests.support.windows import random_windows

ON_CPU = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 1"
)
ERRORS = [
    MemoryError(),
    RuntimeError(ON_CPU),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
]
WINDOWS = random_windows(7)


def with_room_for(windows, error=ERRORS[1]):
    """A model for which that many windows are what memory holds; it notes the size of each batch."""
    model = tiny_transformer()
    model.sizes = []

    def room(z, hook):
        model.sizes.append(len(z))
        if len(z) > windows:
            raise error

    model.add_hook("blocks.1.hook_resid_pre", room)
    return model


def sums(model, size):
    return dissect.collect(model, WINDOWS, batch_size=size, progress=False)["mlp"]["sum_abs"]


def loss(model, size):
    return dissect.evaluate(model, WINDOWS, batch_size=size, progress=False)["loss"]


def rows(model, size):
    return reference_of(model, WINDOWS, batch_size=size).rows


def neuron(model, size):
    card = dissect.neuron_card(model, ("mlp", 1, 7), WINDOWS, WINDOWS, batch_size=size, progress=False)
    return card.forget.mean, card.forget.n, card.forget.histogram.counts.sum(), card.forget_effect.ablated


def head(model, size):
    card = dissect.head_card(model, 1, 2, WINDOWS, WINDOWS, batch_size=size, progress=False)
    return card.forget.entropy, card.forget.n, card.forget_effect.whole


MEASURES = [sums, loss, rows, neuron, head]


@pytest.mark.parametrize("measure", MEASURES)
def test_half_the_windows_are_tried(measure, capsys):
    model = with_room_for(2)
    found = measure(model, None)
    assert model.sizes[0] == 7
    assert "note: out of memory with 7 windows in a batch, trying batch_size=3" in capsys.readouterr().out
    expected = measure(tiny_transformer(), 1)
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-5, atol=1e-5)
    assert our_hooks(model) == 2  # the one that is short of memory


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_size_that_was_given_is_kept(measure):
    model = with_room_for(2)
    message = r"out of memory with batch_size=4 windows of context=17 tokens; give batch_size=2, or take fewer tokens"
    with pytest.raises(DissectError, match=message) as error:
        measure(model, 4)
    assert set(model.sizes) <= {4}
    assert error.value.__context__ is None  # whose frames would hold what memory there is
    assert our_hooks(model) == 2


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("size", [None, 1])
def test_a_single_window_that_is_too_long(measure, size):
    with pytest.raises(DissectError, match=r"batch_size=1 windows of context=17 tokens; make windows with a smaller"):
        measure(with_room_for(0), size)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_every_library_says_it_in_its_own_way(error):
    torch.testing.assert_close(sums(with_room_for(1, error), None), sums(tiny_transformer(), 1))


@pytest.mark.parametrize("error", [RuntimeError("shapes cannot be multiplied"), KeyError("out of memory")])
def test_other_errors_are_not_of_memory(error):
    model = with_room_for(3, error)
    with pytest.raises(type(error)):
        sums(model, None)
    assert len(model.sizes) == 1


def test_what_did_not_fit_is_let_go_of_before_the_next_try():
    seen, sizes = [], []

    def measure(size):
        sizes.append(size)
        assert all(ref() is None for ref in seen)
        large = torch.zeros(10)
        seen.append(weakref.ref(large))
        if size > 2:
            raise MemoryError
        return size

    assert within_memory(measure, None, 50, (12, 5)) == 1
    assert sizes == [50, 6, 3, 1]


def test_a_prompt_that_is_too_long():
    model = with_room_for(0)
    model.tokenizer = SimpleNamespace(padding_side="right")
    with pytest.raises(DissectError, match=r"out of memory .* context=8 tokens"):
        read_on(model, [1, 2, 3], 5)


def test_a_run_keeps_its_batches(tmp_path):
    """What goes on later, with more memory, is to be the same: it is said, and nothing is lost."""
    options = {"forget": (WINDOWS, WINDOWS), "retain": (random_windows(7, seed=1),) * 2, "fraction": 0.1, "steps": 2}
    options |= {"out": tmp_path / "run", "progress": False}
    model = with_room_for(2)
    with pytest.raises(
        DissectError, match="out of memory with batch_size=7 windows of context=17 tokens; give batch_size=3"
    ):
        dissect.prune(model, **options)
    model.reset_hooks()
    run = dissect.prune(model, **options)
    whole = dissect.prune(tiny_transformer(), **options | {"out": tmp_path / "whole"})
    assert [line.metrics for line in run.history] == [line.metrics for line in whole.history]


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on a process's memory")
def test_real_memory():
    code = """
import resource, torch, dissect, dissect.backend.fast
from tests.support.models import tiny_transformer
model = tiny_transformer(n_heads=16, n_ctx=4096)
long = dissect.Windows.from_tokens(torch.randint(3, 50, (2, 4000)))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
for size in (2, 1):
    try:
        with dissect.backend.fast.disabled():
            dissect.evaluate(model, long, batch_size=size, progress=False)
    except dissect.DissectError as error:
        print(error)
print(dissect.evaluate(model, dissect.Windows.from_tokens(long.tokens[:, :64]), progress=False)["n"])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("out of memory with batch_size=2 windows of context=4000 tokens; give batch_size=1"), (
        done
    )
    assert lines[1].startswith("out of memory with batch_size=1 windows of context=4000 tokens; make windows with"), (
        done
    )
    assert lines[2] == "126"
