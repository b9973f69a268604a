"""Whatever a user gives is taken or refused with our error: no traceback of a library's, no half-written run.

Each call has good arguments; hypothesis puts something else in the place of one of them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dissect
from dissect import DissectError, Mask, PruneConfig, Run, Stats, UnitStats, Windows, views
from dissect.backend.sites import SITES
from dissect.cli import main as cli
from dissect.experiments.cost import cost_table
from dissect.experiments.grid import Cluster, all_cells
from dissect.experiments.paper import paper_grids
from tests.support import tiny
from tests.support.models import our_hooks, tiny_transformer
from tests.support.runs import guessable_sides, small_run

NAN, INF = float("nan"), float("inf")

numbers = st.one_of(
    st.sampled_from([0, -1, 2, 2.5, 10**9, 10**30, -(10**30), NAN, INF, -INF, -0.1, 1e-300, 1e300]),
    st.integers(),
    st.floats(),
)
NAMES = ["", " ", "mlp", "abs", "train", "forget", "zero", "light", "nowhere", "meta", "cuda:99"]
PATHS = ["/nowhere/at/all", "a\0b", "\udcff", "x" * 5_000, "a/b", "a/b/c", "~nobody-here/x", "[", "hf:", "hf:a", "p:c"]
texts = st.one_of(st.sampled_from(NAMES + PATHS), st.text(st.characters(exclude_characters="/*?~."), max_size=20))
tensors = st.sampled_from([torch.zeros(0), torch.zeros(3), torch.zeros(2, 3).long(), torch.zeros(3, 20) > 0])
lists = st.lists(st.one_of(st.none(), numbers, texts), max_size=3)
units = st.lists(
    st.tuples(st.sampled_from(sorted(SITES)), st.integers(), st.one_of(st.integers(), st.floats())), max_size=2
)
things = st.sampled_from(
    [None, True, False, object(), print, dict, b"bytes", {}, {"mlp": 1}, {"nothing": 0.1}, Path("nowhere"), iter([])]
)
anything = st.one_of(numbers, texts, lists, lists.map(tuple), units, tensors, things)


class Made:
    """One good thing of every kind, and some of the right kind that do not fit."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, tiny_transformer()
        self.forget, self.retain = (pair[0][:2] for pair in guessable_sides().values())
        self.stats = tuple(
            dissect.collect(self.model, side, sites=SITES, progress=False) for side in (self.forget, self.retain)
        )
        self.scores = dissect.score(forget=self.stats[0], retain=self.stats[1])
        self.mask = self.scores["mlp"].top(0.1)
        self.run = small_run(folder / "run", steps=2)
        self.llama = tiny.save_tiny("llama", folder / "llama")
        self.loaded = dissect.load_model(self.llama, dtype="float32")
        self.text = folder / "text.txt"
        self.text.write_text("\n\n".join(f"the river {number} rose above the town" for number in range(200)))
        self.misfits = [
            Windows.from_tokens(torch.full((2, 3), 10**9)),
            Windows.from_tokens(torch.zeros(2, 200).long()),
            Windows.from_tokens(torch.zeros(2, 3).long(), torch.zeros(2, 3) > 0),
            Mask({}),
            Mask({"mlp": torch.zeros(9, 9) > 0}),
            Stats({}),
            Stats({"mlp": UnitStats(3, {"sum": torch.ones(2, 2).double()})}),
            Stats({"mlp": UnitStats(0, self.stats[0]["mlp"].moments)}),
            *(self.forget, (self.forget, self.forget), self.mask, self.stats[0], self.scores, self.scores["mlp"]),
            *(self.run, self.model),
        ]
        self.calls = self._calls()

    def _calls(self) -> dict[str, tuple[Callable, dict[str, Any]]]:
        model, mask, sides = self.model, self.mask, {"forget": self.forget, "retain": self.retain}
        text, run, scores = str(self.text), self.run, self.scores
        pairs = {side: (windows, windows) for side, windows in sides.items()}
        cut = {"model": model, "mask": mask, "value": "mean", "stats": self.stats[1]}
        named = {"forget": text, "retain": text, "tokens": 50, "eval_tokens": 40, "context": 16, "seed": 0}
        options = dict.fromkeys(("eps", "match", "eval_tokens", "dtype", "device", "batch_size"))
        choices = {"site": "mlp", "importance": "abs", "selector": "score", "head": "mean", "value": "zero", "seed": 0}
        return {
            "load_windows": (
                dissect.load_windows,
                {"corpus": text, "model": self.loaded, "tokens": 50, "context": 16, "split": "train", "seed": 0},
            ),
            "from_tokens": (Windows.from_tokens, {"tokens": self.forget.tokens, "keep": self.forget.keep}),
            "batches": (lambda size: list(self.forget.batches(size)), {"size": 2}),
            "collect": (
                dissect.collect,
                {"model": model, "windows": self.forget, "sites": ("mlp",), "moments": None, "batch_size": 2}
                | {"first_position": False},
            ),
            "score": (
                dissect.score,
                {"forget": self.stats[0], "retain": self.stats[1], "importance": "abs", "eps": 0.1, "sites": "mlp"}
                | {"head": "mean"},
            ),
            "top": (scores["mlp"].top, {"fraction": 0.1, "count": None, "exclude": None}),
            "scores[]": (scores.__getitem__, {"site": "mlp"}),
            "stats[]": (self.stats[0].__getitem__, {"site": "mlp"}),
            "stats +": (lambda other: self.stats[0] + other, {"other": self.stats[1]}),
            "Stats.load": (Stats.load, {"path": run.path / "stats-forget.safetensors"}),
            "Stats.save": (self.stats[0].save, {"path": self.folder / "stats"}),
            "Mask": (Mask, {"by_site": {"mlp": mask["mlp"]}}),
            "Mask of a site": (lambda pruned: Mask({"mlp": pruned}), {"pruned": mask["mlp"]}),
            "Mask.none": (Mask.none, {"model": model, "sites": "mlp"}),
            "Mask.of": (Mask.of, {"model": model, "site": "mlp", "units": [(0, 1)]}),
            "Mask.of a unit": (lambda unit: Mask.of(model, "mlp", [unit]), {"unit": (0, 1)}),
            "Mask.load": (Mask.load, {"path": run.path / "pruned_at.safetensors"}),
            "Mask.save": (mask.save, {"path": self.folder / "mask"}),
            "mask |": (lambda other: mask | other, {"other": mask}),
            "mask -": (lambda other: mask - other, {"other": mask}),
            "mask[]": (mask.__getitem__, {"site": "mlp"}),
            "mask.per_layer": (mask.per_layer, {"site": "mlp"}),
            "mask.as_pre_out": (Mask.none(model, "value").as_pre_out, {"model": model}),
            "ablate": (lambda **given: dissect.ablate(**given).remove(), cut),
            "ablated": (self._ablated, cut),
            "bake": (lambda **given: dissect.bake(**given).restore(), cut),
            "rotate_to_svd": (lambda model: dissect.rotate_to_svd(model).restore(), {"model": model}),
            "evaluate": (
                dissect.evaluate,
                {"model": model, "windows": self.forget, "reference": None, "seed": 0, "batch_size": 2},
            ),
            "prune": (
                self._prune,
                {"model": model, "fraction": 0.1, "steps": 1, "first_position": False} | pairs | choices | options,
            ),
            "prune by name": (self._prune, {"model": self.loaded} | named),
            "prune to": (lambda out: self._prune(self.model, out=out, **pairs), {"out": self.folder / "to"}),
            "export": (self._export, {"model_or_run": self.loaded, "step": None}),
            "export to": (lambda path: dissect.export(self.loaded, path), {"path": self.folder}),
            "neuron_cards": (
                lambda **given: dissect.neuron_cards(**given)._repr_html_(),
                {"model": model, "units": [("mlp", 0, 1)], "contexts": 2, "around": 4, "tokens": 3}
                | {"ablation_tokens": 4, "batch_size": None, **sides},
            ),
            "head_cards": (
                lambda **given: dissect.head_cards(**given)._repr_html_(),
                {"model": model, "heads": [(0, 1)], "ablation_tokens": 4, "batch_size": None, **sides},
            ),
            "top_cards": (
                dissect.top_cards,
                {"run": run, "n": 2, "model": model, "tokens": 10, "ablation_tokens": 10},
            ),
            "neurons": (dissect.neurons, {"scores": scores, "run": run}),
            "units_of": (dissect.units_of, {"table": dissect.neurons(scores)}),
            "load_model": (dissect.load_model, {"name_or_path": self.llama, "dtype": "float32", "device": "cpu"}),
            "Run.load": (Run.load, {"path": run.path}),
            "run.mask": (run.mask, {"step": 1}),
            "run.stats": (run.stats, {"side": "forget"}),
            "run.scores": (run.scores, {"importance": "abs", "eps": None}),
            "run.drops": (run.drops, {"side": "forget", "metric": "top1"}),
            "views.dashboard": (views.dashboard, {"run": run, "theme": "light"}),
            **{
                f"views.{draw.__name__}": (draw, {"runs": [run], "theme": "light"})
                for draw in (views.compare, views.curves, views.perplexity)
            },
            "views.importance": (views.importance, {"scores": scores["mlp"], "fraction": 0.1, "theme": "light"}),
            "views.overlap": (views.overlap, {"masks": {"a": mask}, "theme": "light"}),
            "views.pruned_by_layer": (views.pruned_by_layer, {"run": run, "theme": "light"}),
            "views.specialization": (views.specialization, {"scores": scores["mlp"], "mask": mask, "theme": "light"}),
            "views.write_figures": (views.write_figures, {"runs": [run], "folder": self.folder}),
            "views.write_report": (views.write_report, {"runs": [run], "path": self.folder / "page", "cards": ()}),
            "stability": (
                functools.partial(dissect.stability, progress=False),
                {"model": model, "sites": ("mlp",), "importances": ("abs",), "fraction": 0.1, "splits": 1, "seed": 0}
                | {"batch_size": 2, "tokens": 9, "context": 9, **sides},
            ),
            "stability by name": (
                functools.partial(dissect.stability, progress=False, sites="mlp", importances="abs", splits=1),
                {"model": self.loaded, "forget": text, "retain": text, "tokens": 60, "context": 16, "seed": 0},
            ),
            "cost_table": (
                cost_table,
                {"cells": [PruneConfig("opt-125m", "a", "b")], "gpus": (1, 2), "operations_per_second": 1e12},
            ),
            "cost of an experiment": (
                self._cost,
                {"what": "claims", "models": ("opt-125m",), "tokens": 100, "steps": 2, "context": 16}
                | {"offline": True, "first_position": False},
            ),
            "rerun": (self._rerun, {"run": run, "model": model, "device": None} | guessable_sides()),
            "rerun to": (lambda out: self._rerun(run, model=model, out=out, **guessable_sides()), {"out": "again"}),
            "Cluster": (
                lambda **given: Cluster(**given).check(),
                {"address": None, "cpus_per_run": 1.0, "gpus_per_run": 0.5},
            ),
            "run_grid": (
                functools.partial(dissect.run_grid, progress=False),
                {
                    "grid": dissect.Grid(self._config(), forget=("nowhere",)),
                    "cluster": None,
                    "out": self.folder / "grid",
                },
            ),
            "Grid": (
                lambda **given: all_cells(dissect.Grid(**given), self.folder),
                {"base": self._config(), "models": ("m",), "sites": ("mlp",), "importances": ("abs",)}
                | {"selectors": ("random",), "seeds": (0,), "random_seeds": 1, "both_directions": False},
            ),
        }

    def _config(self) -> PruneConfig:
        text = str(self.text)
        return PruneConfig(str(self.llama), text, text, fraction=0.1, steps=1, tokens=40, context=16, dtype="float32")

    def _ablated(self, **given: Any) -> None:
        with dissect.ablated(**given):
            self.model(self.forget.tokens)

    def _prune(self, model: Any, **given: Any) -> None:
        """Where it is refused there is no folder."""
        fresh = Path(tempfile.mkdtemp(dir=self.folder)) / "run"
        try:
            dissect.prune(model, **{"out": fresh, "steps": 1, "fraction": 0.1, "progress": False} | given)
        except DissectError:
            assert not fresh.exists()
            raise

    def _cost(self, what: Any, models: Any, **given: Any) -> None:
        cost_table(all_cells(paper_grids(what, models, **given), self.folder))

    def _rerun(self, run: Any, **given: Any) -> None:
        given.setdefault("out", Path(tempfile.mkdtemp(dir=self.folder)) / "again")
        dissect.rerun(run, progress=False, **given)

    def _export(self, model_or_run: Any, step: Any) -> None:
        fresh = Path(tempfile.mkdtemp(dir=self.folder)) / "model"
        try:
            dissect.export(model_or_run, fresh, step=step)
        except DissectError:
            assert not list(fresh.parent.iterdir())
            raise


@pytest.fixture(scope="module", autouse=True)
def unchecked() -> Iterator[None]:
    """Without the tests' run-time type checker, which would refuse wrong types before we do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, unchecked: None) -> Iterator[Made]:
    """In a folder of its own, since some values are names of files; and without a hub."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TQDM_DISABLE", "1")
        yield Made(folder)


@given(data=st.data())
@settings(max_examples=1_200, deadline=None, derandomize=True, database=None)
def test_a_python_call_takes_it_or_refuses_it(made, data):
    call, good = made.calls[data.draw(st.sampled_from(sorted(made.calls)))]
    argument = data.draw(st.sampled_from(sorted(good)))
    value = data.draw(st.one_of(anything, st.sampled_from(made.misfits)))
    with contextlib.suppress(DissectError):
        call(**good | {argument: value})
    assert our_hooks(made.model) == 0


def test_the_good_arguments_are_taken(made):
    """Otherwise the test above would see nothing but the same refusal."""
    for name, (call, good) in made.calls.items():
        if name not in ("export to", "top_cards", "run_grid", "Mask.load"):
            call(**good)


# The command line

WORDS = [
    *NAMES,
    *PATHS,
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "1",
    "2.5",
    "9" * 30,
    "True",
    "None",
    "mlp=0.1,head=x",
]
words = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_characters="/*?~."), max_size=8))


def commands(made: Made, out: Path) -> list[list[str]]:
    """Good command lines, each an option and its value in turn behind the command."""
    model, text = str(made.llama), str(made.text)
    small = ["--steps", "1", "--tokens", "40", "--context", "16"]
    corpora = ["--forget", text, "--retain", text]
    numbers = ["--fraction", "0.1", "--eval-tokens", "30", "--seed", "0", "--eps", "0.1", "--batch-size", "4"]
    names = ["--site", "mlp", "--importance", "abs", "--selector", "random", "--value", "zero", "--head", "mean"]
    machine = ["--dtype", "float32", "--device", "cpu", "--match", "nowhere", "--out", str(out)]
    halves = "--sites mlp --importances abs --fraction 0.1 --tokens 60 --context 16 --splits 1 --seed 0".split()
    halves += "--batch-size 4 --dtype float32 --device cpu".split()
    grid = [
        "--models",
        model,
        *corpora,
        "--sites",
        "mlp",
        "--importances",
        "abs",
        "--selectors",
        "score",
        "--seeds",
        "0",
    ]
    return [
        ["prune", "--model", model, *corpora, *small, *numbers, *names, *machine],
        ["compare", *grid, *small, "--fraction", "0.1", "--eps", "0.1", "--head", "mean", "--out", str(out)],
        ["reproduce", "fig1", "--models", model, *small, "--batch-size", "4", "--seed", "0", "--out", str(out)],
        ["cost", "fig1", "--models", "opt-125m", *small, "--gpus", "1", "--operations-per-second", "1e12"],
        ["stability", "--model", model, *corpora, *halves, "--out", str(out)],
        ["rerun", str(made.run.path), "--device", "cpu", "--out", str(out)],
        ["export", str(made.run.path), "--step", "1", "--out", str(out)],
        ["report", str(made.run.path), "--cards", "0", "--out", str(out)],
    ]


def said(arguments: list[str]) -> tuple[int, str]:
    """The exit status of a command, and what it says on standard error; -1 for tyro's own refusal."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            return cli.main(arguments), errors.getvalue()
        except SystemExit as refusal:
            return refusal.code - 3, errors.getvalue()


@given(data=st.data())
@settings(max_examples=250, deadline=None, derandomize=True, database=None)
def test_a_command_ends_with_one_line_or_does_it(made, data):
    out = Path(tempfile.mkdtemp(dir=made.folder)) / "out"
    command = data.draw(st.sampled_from(commands(made, out)))
    places = [place for place in range(1, len(command)) if not command[place].startswith("--")]
    command[data.draw(st.sampled_from(places))] = data.draw(words)
    status, errors = said(command)
    if status == 2:
        *bars, last = errors.rstrip("\n").split("\n")
        assert last.startswith("dissect: error: ")
        assert not any("Traceback" in line for line in bars)
        assert not (out / "config.json").exists() or Run.load(out).finished
    assert status in (0, 2, -1)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--fraction", "nan", "fraction must be in (0, 1], got nan"),
        ("--eps", "inf", "eps must be a finite number, 0 or more, got inf"),
        ("--seed", "-1", "seed must be a whole number, 0 or more, got -1"),
        ("--tokens", "9" * 30, "tokens must be a whole number"),
        ("--forget", "", "forget must be text"),
        ("--forget", "a\0b", "forget must be text in UTF-8, without NUL"),
        ("--forget", "x" * 5_000, "File name too long"),
        ("--forget", "~nobody-here/x", "cannot be a path: there is no such user"),
        ("--model", "\udcff", "model must be text in UTF-8"),
        ("--model", "~nobody-here/x", "cannot be a path: there is no such user"),
        ("--model", "a/b", "cannot reach the hub for 'a/b'"),
        ("--device", "meta", "device 'meta' cannot be used here"),
        ("--out", "x" * 5_000, "File name too long"),
    ],
)
def test_a_message_names_value_and_fix(made, tmp_path, monkeypatch, option, value, message):
    monkeypatch.chdir(tmp_path)  # the tests above may have made a folder called a/b
    command = commands(made, tmp_path / "out")[0]
    command[command.index(option) + 1] = value
    match = command.index("--match")
    status, errors = said(command[:match] + command[match + 2 :])
    assert (status, message in errors, errors.count("\n")) == (2, True, 1), errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", [dissect.collect, dissect.evaluate])
def test_windows_that_a_model_cannot_read_are_named(model, call):
    with pytest.raises(DissectError, match=r"token 50, but the model's vocabulary has 50 \(d_vocab\)"):
        call(model, Windows.from_tokens(torch.full((2, 5), 50)))
    with pytest.raises(DissectError, match=r"65 positions, more than the 64 of the model \(n_ctx\)"):
        call(model, Windows.from_tokens(torch.zeros(2, 65).long()))


def test_true_and_false_are_no_numbers(made):
    with pytest.raises(DissectError, match="batch_size must be a whole number, 1 or more, got True"):
        dissect.collect(made.model, made.forget, batch_size=True)
    with pytest.raises(DissectError, match=r"fraction must be in \(0, 1\], got True"):
        made.scores["mlp"].top(True)
    with pytest.raises(DissectError, match="eps must be a finite number, 0 or more, got False"):
        dissect.score(forget=made.stats[0], retain=made.stats[1], eps=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importances": 5}, "importances must be a list of names of importances, got int 5"),
        ({"importances": (["abs"],)}, r"unknown importance \['abs'\]"),
        ({"sites": 5}, "sites must be a list of names of sites, got int 5"),
        ({"splits": True}, "splits must be a whole number, 1 or more, got True"),
        ({"splits": 2.0}, "splits must be a whole number, 1 or more, got 2.0"),
        ({"retain": 5}, "retain must be the name of a corpus, a path or Windows, got int 5"),
    ],
)
def test_stability_names_what_it_cannot_take(made, options, message):
    with pytest.raises(DissectError, match=message):
        dissect.stability(made.model, **{"forget": made.forget, "retain": made.retain} | options)


def test_cost_names_what_it_cannot_take(made):
    for gpus in (5, "8", (1.5,), (True,)):
        with pytest.raises(DissectError, match="gpus must be a"):
            cost_table([PruneConfig("opt-125m", "a", "b")], gpus=gpus)
    with pytest.raises(DissectError, match="unknown experiment 'fig9'"):
        paper_grids("fig9")
