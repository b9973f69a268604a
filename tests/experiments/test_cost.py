"""What runs cost: against a number worked out by hand, and against the operations that a run really does."""

from __future__ import annotations

import dataclasses

import pytest
from torch.utils.flop_counter import FlopCounterMode

import dissect
from dissect import DissectError, PruneConfig
from dissect.backend import fast
from dissect.cli.main import main
from dissect.experiments.cost import SHAPES, Shape, cost_table, forward_operations, run_operations
from dissect.experiments.grid import Cluster, all_cells
from dissect.experiments.paper import PAPER_MODELS, paper_grids
from tests.support.models import tiny_transformer
from tests.support.runs import guessable_sides, small_run
from tests.support.windows import random_windows


def config(**changes):
    return PruneConfig(**{"model": "opt-125m", "forget": "a", "retain": "b", "context": 1_001} | changes)


def test_a_run_of_opt_125m_by_hand():
    """12 layers of 7,077,888 weights (4 * 768² and 2 * 768 * 3072), the pattern's half, 50,272 tokens to unembed."""
    blocks = 2 * 12 * (7_077_888 + 2 * 768 * 501)
    assert forward_operations(SHAPES["opt-125m"], 1_001) == blocks
    evaluations, statistics = 2 * 51 * 100_000, 2 * 50 * 100_000
    by_hand = (evaluations + statistics) * 1.001 * blocks + evaluations * 2 * 768 * 50_272
    assert run_operations(config(), SHAPES["opt-125m"]) == pytest.approx(by_hand, rel=1e-12)


def shape_of(cfg):
    sizes = {name: getattr(cfg, name) for name in ("n_layers", "d_model", "d_mlp", "n_heads", "d_vocab", "n_ctx")}
    return Shape(**sizes, n_key_value_heads=cfg.n_key_value_heads, d_head=cfg.d_head)


@pytest.mark.parametrize("options", [{}, {"iterative": False}, {"selector": "random"}])
def test_what_a_run_really_does(tmp_path, options):
    """Counted by torch; TransformerLens computes the whole pattern, and nothing is left out of it."""
    model, _ = tiny_transformer(), guessable_sides()
    with fast.disabled(), FlopCounterMode(display=False) as counter:
        run = small_run(tmp_path / "run", model, **options)
    counted = dataclasses.replace(run.config, tokens=64, context=17)  # 4 windows of 16 predictions
    assert counter.get_total_flops() == run_operations(counted, shape_of(model.cfg), causal=False)


@pytest.mark.parametrize(
    "options", [{"importance": "attribution", "combine": "difference"}, {"selector": "learned", "updates": 5}]
)
def test_what_gradients_really_take(tmp_path, options):
    """To within a fifth: the way back ends at the first unit read, and learning also measures what is held back."""
    model = tiny_transformer(n_layers=8, n_ctx=1_024)
    train, test = random_windows(3, 513), random_windows(1, 17)
    sides = {"forget": (train, test), "retain": (train, test)}
    with fast.disabled(), FlopCounterMode(display=False) as counter:
        run = dissect.prune(model, **sides, fraction=0.1, steps=2, out=tmp_path / "run", progress=False, **options)
    counted = dataclasses.replace(run.config, tokens=3 * 512, eval_tokens=16, context=513)
    expected = run_operations(counted, shape_of(model.cfg), causal=False)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.2)
    assert expected > 1.5 * run_operations(dataclasses.replace(counted, selector="random"), shape_of(model.cfg))


def test_the_sizes_are_those_of_the_models():
    """Parameters as published, without biases and norms; an embedding that is tied there counts twice here."""
    published = {"opt-125m": 125_239_296, "opt-6.7b": 6_658_473_984, "pythia-6.9b": 6_857_302_016}
    for name, count in published.items():
        shape = SHAPES[name]
        tied = 0 if name.startswith("pythia") else shape.d_vocab * shape.d_model
        rotary = shape.n_ctx * shape.d_model if name.startswith("pythia") else 0
        assert shape.parameters - tied - rotary == pytest.approx(count, rel=1e-3)
    assert SHAPES["smollm2-135m"].matrices == 106_168_320


def test_the_table_has_every_model_and_their_sum(tmp_path):
    table = cost_table(all_cells(paper_grids("table2"), tmp_path), gpus=(1, 10)).set_index("model")
    assert list(table.index) == [*PAPER_MODELS, "all"]
    assert table["runs"].tolist() == [8] * 11 + [88]
    parts = table["operations"].astype(float)
    assert parts["all"] == pytest.approx(parts.drop("all").sum(), rel=0.05)
    hours = float(table.loc["all", "hours on 1 GPU"])
    assert hours == pytest.approx(parts["all"] / (0.4 * 989e12) / 3600, rel=0.05)
    assert float(table.loc["all", "hours on 10 GPUs"]) == pytest.approx(hours / 10, rel=0.05)
    with pytest.raises(DissectError, match="unknown model among those whose sizes are known 'gpt-5'"):
        cost_table([config(model="gpt-5")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--context", "1"], "context must be a whole number, 2 or more, got 1"),
        (["--gpus", "1", "0"], "a number of GPUs must be a whole number, 1 or more, got 0"),
        (["--tokens", "-5"], "tokens must be a whole number, 1 or more, got -5"),
        (["--steps", "0"], "steps must be a whole number, 1 to 32767, got 0"),
        (["--operations-per-second", "0"], "operations_per_second must be a finite number above 0, got 0.0"),
        (["--operations-per-second", "nan"], "operations_per_second must be a finite number above 0, got nan"),
        (["--operations-per-second", "inf"], "operations_per_second must be a finite number above 0, got inf"),
        (["--models"], "there is no run without a model"),
    ],
)
def test_numbers_that_no_run_has(capsys, options, message):
    assert main(["cost", *options]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cpus-per-run", "-1"], "cpus_per_run must be a finite number above 0, got -1.0"),
        (["--cpus-per-run", "nan"], "cpus_per_run must be a finite number above 0, got nan"),
        (["--gpus-per-run", "-1"], "gpus_per_run must be a fraction of a GPU"),
        (["--gpus-per-run", "1.5"], "gpus_per_run must be a fraction of a GPU"),
        (["--gpus-per-run", "inf"], "gpus_per_run must be a fraction of a GPU"),
    ],
)
@pytest.mark.parametrize("ray", [[], ["--ray"]])
def test_what_a_run_cannot_ask_a_machine_for(tmp_path, capsys, options, message, ray):
    assert main(["reproduce", "fig1", "--offline", "--out", str(tmp_path / "out"), *ray, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_python_is_told_the_same():
    with pytest.raises(DissectError, match="context must be a whole number, 2 or more, got 1"):
        run_operations(config(context=1), SHAPES["opt-125m"])
    Cluster(None, 0.5, 0).check()
    Cluster("auto", 3, 2.0).check()


def test_a_masked_model_answers_less_and_sees_both_sides():
    shape = SHAPES["roberta-base"]
    causal = dataclasses.replace(shape, masked=False)
    assert forward_operations(shape, 512, causal=False) > forward_operations(causal, 512)
    evaluated = config(selector="random")
    blocks = 2 * 51 * 100_000 * 1.001 * forward_operations(shape, 1_001, causal=False)
    head = 2 * 51 * 15_000 * 2 * 768 * (50_265 + 768)
    assert run_operations(evaluated, shape) == pytest.approx(blocks + head)
