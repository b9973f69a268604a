"""Sites that some layers lack: absent units are never chosen, counted, cut or shown, and layers keep their numbers."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
import transformers

import dissect
from dissect import DissectError, Mask, Run, load_model
from dissect.backend.sites import SITES, partial_layers, sites_of
from dissect.cli.main import main
from dissect.explorer.choice import describe
from dissect.explorer.stand_in import stand_in
from dissect.scoring.at_random import as_many_at_random, layer_random_units, random_units
from dissect.scoring.combine import COMBINERS
from dissect.views import dashboard, importance, pruned_by_layer, specialization
from tests.support import tiny
from tests.support.architectures import GROUPED, _causal
from tests.support.mixtures import MIXTURES
from tests.support.windows import random_windows

KINDS = ["conv", "full_attention", "conv", "full_attention"]
MODELS = {
    "hybrid": _causal("Lfm2", **{**GROUPED, "num_hidden_layers": 4}, layer_types=KINDS),
    "mixture": lambda: MIXTURES["qwen2-moe"](num_hidden_layers=3, mlp_only_layers=[0]),
}
PARTIAL = {
    "hybrid": dict.fromkeys(("value", "pre_out", "head"), (1, 3)),
    "mixture": {"mlp": (0,), "expert": (1, 2), "expert_mlp": (1, 2)},
}
CASES = [(name, site) for name, sites in PARTIAL.items() for site in sites]
SIDES = {
    side: tuple(random_windows(4, 13, seed=2 * seed + part, d_vocab=tiny.VOCAB) for part in (0, 1))
    for seed, side in enumerate(("forget", "retain"))
}


@functools.cache
def loaded(name):
    return load_model(MODELS[name](), bridge=True, skip_layers=True)


@functools.cache
def stats_of(name):
    model = loaded(name)
    return [dissect.collect(model, SIDES[side][0], sites=sites_of(model), progress=False) for side in SIDES]


def scores_of(name, **options):
    forget, retain = stats_of(name)
    return dissect.score(forget=forget, retain=retain, **options)


@torch.no_grad()
def projected(hf_model, layer, site, tokens):
    """What transformers' own attention makes of values (`value`), or reads to write (`pre_out`), in a layer."""
    attention, seen = hf_model.model.layers[layer].self_attn, []
    handles = [
        attention.v_proj.register_forward_hook(lambda _, inputs, out: seen.append(out)),
        attention.out_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
    ]
    hf_model(tokens)
    for handle in handles:
        handle.remove()
    return seen[("value", "pre_out").index(site)]


def absent(name, site):
    """The layers without the site."""
    return [layer for layer in range(loaded(name).cfg.n_layers) if layer not in PARTIAL[name][site]]


def n_units(name, site):
    return len(PARTIAL[name][site]) * math.prod(SITES[site].unit_shape(loaded(name).cfg))


class TestLoading:
    @pytest.mark.parametrize("name", PARTIAL)
    def test_by_default_they_are_refused_and_the_option_is_named(self, name):
        model = load_model(MODELS[name](), bridge=True)
        for site in PARTIAL[name]:
            with pytest.raises(DissectError, match=r"alone, load the model with skip_layers=True \(--skip-layers\)"):
                dissect.collect(model, SIDES["forget"][0], sites=site, progress=False)
        assert not set(PARTIAL[name]) & set(sites_of(model))

    @pytest.mark.parametrize("name", PARTIAL)
    def test_what_is_skipped_is_said_once(self, name, capsys):
        model = load_model(MODELS[name](), bridge=True, skip_layers=True)
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
        assert len(lines) == 1
        found = {"hybrid": "value, pre_out, head in layers 1, 3", "mixture": "mlp in layer 0; expert, expert_mlp in"}
        assert found[name] in lines[0]
        assert partial_layers(model, sites_of(model)) == PARTIAL[name]

    def test_a_bridge_that_is_handed_over(self):
        model = load_model(MODELS["hybrid"](), bridge=True)
        assert load_model(model, skip_layers=True) is model
        assert "value" in sites_of(model)
        load_model(model)
        assert "value" not in sites_of(model)

    def test_the_command_says_the_layers(self, tmp_path, capsys):
        MODELS["mixture"]().save_pretrained(tmp_path / "mixture")
        assert main(["models", str(tmp_path / "mixture"), "--bridge", "--skip-layers"]) == 0
        said = capsys.readouterr().out
        assert "mlp          80, in layer 0 alone" in said
        assert "expert_mlp   4 x 40, in layers 1 to 2 alone" in said
        assert main(["models", str(tmp_path / "mixture"), "--bridge"]) == 0
        assert "to use it in layer 0 alone, load the model with skip_layers=True" in capsys.readouterr().out


class TestStatisticsAndScores:
    @pytest.mark.parametrize(("name", "site"), CASES)
    def test_sums_are_those_of_the_layers_that_are_there(self, name, site):
        stats = stats_of(name)[0][site]
        assert stats.there.nonzero().flatten().tolist() == list(PARTIAL[name][site])
        for sums in stats.moments.values():
            assert sums[absent(name, site)].isnan().all()
            assert sums[list(PARTIAL[name][site])].isfinite().all()

    @pytest.mark.parametrize("site", ["value", "pre_out"])
    def test_each_layer_keeps_its_number(self, site):
        """Against the activations that torch's own hooks on transformers' modules see."""
        hf_model, windows = MODELS["hybrid"](), SIDES["forget"][0]
        for layer in PARTIAL["hybrid"][site]:
            z = projected(hf_model, layer, site, windows.tokens)
            expected = z[windows.keep].double().abs().sum(0)
            torch.testing.assert_close(
                stats_of("hybrid")[0][site]["sum_abs"][layer].flatten(), expected, rtol=1e-4, atol=0
            )

    def test_gradients_and_weights_too(self):
        model, moments = loaded("mixture"), ("attribution", "weight", "sum_sq")
        stats = dissect.collect(model, SIDES["forget"][0], sites="mlp", moments=moments, progress=False)["mlp"]
        assert all(sums[1:].isnan().all() and sums[0].isfinite().all() for sums in stats.moments.values())
        scores = dissect.score(
            forget=dissect.Stats({"mlp": stats}), retain=dissect.Stats({"mlp": stats}), importance="wanda"
        )
        assert scores["mlp"].top(0.5).per_layer() == [40, 0, 0]

    def test_they_are_saved_and_added(self, tmp_path):
        one, other = stats_of("hybrid")
        one.save(tmp_path / "stats")
        both = dissect.Stats.load(tmp_path / "stats") + other
        assert both["value"].there.tolist() == [False, True, False, True]
        whole = dissect.UnitStats(one["value"].count, {k: v.nan_to_num() for k, v in one["value"].moments.items()})
        with pytest.raises(DissectError, match="collect both from the same model"):
            _ = whole + other["value"]
        with pytest.raises(DissectError, match="layers that have site 'value' are not the same"):
            dissect.score(forget=dissect.Stats({"value": whole}), retain=other, sites="value")

    @pytest.mark.parametrize("combine", COMBINERS)
    @pytest.mark.parametrize(("name", "site"), CASES)
    def test_all_units_that_there_are_can_be_taken_and_no_other(self, name, site, combine):
        scores = scores_of(name, combine=combine, sites=site)[site]
        layers = list(PARTIAL[name][site])
        assert scores.total == n_units(name, site)
        everything = scores.top(1.0)
        assert len(everything) == everything.total == n_units(name, site)
        assert sum(everything.per_layer()[layer] for layer in layers) == len(everything)
        half = scores.top(0.5)
        assert len(half) == round(0.5 * n_units(name, site))
        with pytest.raises(DissectError, match=f"0 of {n_units(name, site)} are left"):
            scores.top(count=1, exclude=everything)
        # What a score is does not depend on layers that are not there.
        alone = COMBINERS[combine].of(
            scores.forget[layers], scores.retain[layers], COMBINERS[combine].number or scores.eps
        )
        if site != "head":  # whose score is the mean of its dimensions'
            assert torch.equal(scores.values[layers], alone)

    def test_gates_are_learned_where_there_are_units(self):
        model = loaded("hybrid")
        gates = dissect.learn_gates(
            model, SIDES["forget"][0], SIDES["retain"][0], sites="head", updates=2, progress=False
        )
        assert gates["head"].isnan().any(1).tolist() == [True, False, True, False]
        again = dissect.Gates.from_bytes(gates.to_bytes())
        scores = scores_of("hybrid", sites="head", gates=again)["head"]
        assert scores.top(1.0).per_layer() == [0, 4, 0, 4]

    def test_entropy(self):
        forget, retain = stats_of("hybrid")
        spread = dissect.entropy({"a": forget, "b": retain}, site="value")
        assert spread.values.isnan().flatten(1).all(1).tolist() == [True, False, True, False]
        few = spread.lowest(count=2)
        assert few.per_layer()[0] == few.per_layer()[2] == 0
        there = spread.importances[:, [1, 3]]
        limit = there.flatten().sort().values[round(0.95 * there.numel()) - 1]
        assert int(spread.active.sum()) == int((there > limit).any(0).sum()) > 0


class TestMasks:
    @pytest.mark.parametrize(("name", "site"), CASES)
    def test_one_that_names_an_absent_unit_is_refused(self, name, site):
        model, layer = loaded(name), absent(name, site)[0]
        unit = (layer, *(0 for _ in SITES[site].unit))
        with pytest.raises(DissectError, match=rf"prunes units of site '{site}' in layer {layer}, and .* alone"):
            Mask.of(model, site, [unit])
        by_hand = Mask({site: torch.ones(SITES[site].mask_shape(model.cfg), dtype=torch.bool)})
        for cut in (dissect.ablate, dissect.bake):
            with pytest.raises(DissectError, match=f"prunes units of site '{site}' in layer"):
                cut(model, by_hand)
        with pytest.raises(DissectError, match="take those out of the mask"):
            by_hand | Mask.none(model, site)

    def test_its_layers_are_kept(self, tmp_path):
        mask = scores_of("hybrid")["value"].top(0.25)
        mask.save(tmp_path / "mask")
        assert Mask.load(tmp_path / "mask").layers == Mask.from_bytes(mask.to_bytes()).layers == {"value": (1, 3)}
        both = mask | scores_of("hybrid")["mlp"].top(0.25)
        assert both.layers == {"value": (1, 3)}
        assert both.total == n_units("hybrid", "value") + 4 * loaded("hybrid").cfg.d_mlp
        assert repr(mask) == f"Mask(value: {len(mask)} of {n_units('hybrid', 'value')} units pruned)"
        other = Mask({"value": torch.zeros_like(mask["value"])}, {"value": (1, 2)})
        with pytest.raises(DissectError, match="masks of two models"):
            mask | other

    @pytest.mark.parametrize("layers", [(4,), (-1,), (0, 9)])
    def test_layers_that_cannot_be(self, layers):
        with pytest.raises(DissectError, match="must be numbers below 4"):
            Mask({"head": torch.zeros(4, 2, dtype=torch.bool)}, {"head": layers})

    @pytest.mark.parametrize(("name", "site"), CASES)
    def test_random_units_are_units(self, name, site):
        none, count = Mask.none(loaded(name), site), n_units(name, site)
        assert random_units(none, site, count, (0,)) == scores_of(name)[site].top(1.0)
        mask = scores_of(name)[site].top(0.5)
        assert as_many_at_random(mask, 0).per_layer()[absent(name, site)[0]] == 0
        assert layer_random_units(none, site, mask.per_layer(), (0,)).per_layer() == mask.per_layer()


class TestCuts:
    def test_means_compensation_and_rotation(self):
        """By hooks and in the weights alike; the table of architectures has zero."""
        model, tokens = loaded("hybrid"), SIDES["forget"][1].tokens
        retain, mask = stats_of("hybrid")[1], scores_of("hybrid")["pre_out"].top(0.25)
        moments = dissect.second_moments(model, SIDES["retain"][0], sites="pre_out", progress=False)
        assert not moments["pre_out"][[0, 2]].any()
        before = model(tokens)
        for how in ({"value": "mean", "stats": retain}, {"compensation": dissect.compensate(moments, mask)}):
            with dissect.ablated(model, mask, **how):
                by_hooks = model(tokens)
            edit = dissect.bake(model, mask, **how)
            effect, apart = (by_hooks - before).abs().max(), (model(tokens) - by_hooks).abs().max()
            edit.restore()
            assert apart < 1e-4 * effect
        edit = dissect.rotate_to_svd(model)
        torch.testing.assert_close(model(tokens), before, rtol=1e-3, atol=1e-3)
        edit.restore()
        assert torch.equal(model(tokens), before)

    def test_calibration_draws_units_that_are_there(self):
        model, units = loaded("hybrid"), n_units("hybrid", "head")
        options = {"site": "head", "importances": ("abs",), "progress": False}
        found = dissect.calibrate(model, SIDES["forget"][0], units=units, **options)
        assert sorted(unit for group in found.groups for unit in group) == [(i, h) for i in (1, 3) for h in range(4)]
        assert found.table["predicted"].notna().all()
        with pytest.raises(DissectError, match=f"units must be at most {units}"):
            dissect.calibrate(model, SIDES["forget"][0], units=units + 1, **options)

    def test_an_atlas(self, tmp_path):
        model, texts = loaded("hybrid"), {"a": SIDES["forget"], "b": SIDES["retain"]}
        found = dissect.atlas(model, texts, site="value", fraction=0.25, progress=False)
        count = round(0.25 * n_units("hybrid", "value"))
        assert [len(found.mask(name)) for name in "ab"] == [count, count]
        assert found.mask("a").per_layer()[0] == 0
        assert found.chance == pytest.approx(0.25 / 1.75)
        assert set(found.units()["layer"]) <= {1, 3}
        again = dissect.Atlas.load(found.save(tmp_path / "atlas"))
        assert again.mask("a") == found.mask("a")
        assert f"of {n_units('hybrid', 'value')} value units" in again.figure().to_json()

    def test_tuning(self, tmp_path):
        pytest.importorskip("optuna", reason="optuna is not installed (extra tune)")
        model, triple = (
            loaded("hybrid"),
            {
                side: (*pair, random_windows(4, 13, seed=9 + len(side), d_vocab=tiny.VOCAB))
                for side, pair in SIDES.items()
            },
        )
        options = {"sites": "pre_out", "importances": ("abs", "std"), "edits": "zero", "combiners": "ratio"}
        found = dissect.tune(model, **triple, out=tmp_path / "tuned", trials=2, steps=2, progress=False, **options)
        assert found.run.mask().per_layer()[0] == found.run.mask().per_layer()[2] == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        make().save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def run(request, folder, tmp_path_factory):
    name, site = request.param
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"bridge": True, "skip_layers": True, "dtype": "float32", "progress": False}
    options |= {"site": site, "fraction": 0.25, "steps": 4}
    return name, site, dissect.prune(str(folder / name), **SIDES, out=out, **options)


class TestRuns:
    def test_all_steps_prune_all_units_that_there_are(self, run):
        name, site, run = run
        assert [step.pruned for step in run.history] == [0, 0.25, 0.5, 0.75, 1]
        assert run.history[-1].units == n_units(name, site) == run.mask().total
        assert all(not step.per_layer[layer] for step in run.history for layer in absent(name, site))
        assert run.record["model"]["layers"] == {site: list(PARTIAL[name][site])}
        assert Run.load(run.path).mask().layers == run.mask().layers == {site: PARTIAL[name][site]}

    def test_it_is_exported_as_its_hooks_cut(self, run, folder, tmp_path):
        name, _, run = run
        tokens, step = SIDES["forget"][1].tokens, 2
        model = load_model(folder / name, bridge=True, skip_layers=True, dtype="float32")
        before = model(tokens)
        with dissect.ablated(model, run.mask(step)):
            cut = model(tokens)
        exported = dissect.export(run, tmp_path / "exported", step=step).path
        again = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
        with torch.no_grad():
            assert (again(tokens).logits - cut).abs().max() < 1e-4 * (cut - before).abs().max()

    def test_what_is_not_there_is_not_shown(self, run):
        name, site, run = run
        scores, missing = run.scores(), absent(name, site)
        assert set(dissect.neurons(scores, run)["layer"]) == set(PARTIAL[name][site])
        assert len(dissect.neurons(scores)) == n_units(name, site)
        heat = next(trace for trace in pruned_by_layer(run).data if trace.name == site)
        assert np.isnan(heat.z).all(1).nonzero()[0].tolist() == missing
        rows = next(trace for trace in specialization(scores, run.mask(1)).data if trace.name == site)
        assert np.isnan(rows.z).all(1).nonzero()[0].tolist() == missing
        shown = importance(scores[site], fraction=0.25)
        assert f"{n_units(name, site):,} units" in shown.layout.title.subtitle.text
        dots = [dot for trace in shown.data if trace.customdata is not None for dot in trace.customdata]
        assert {int(dot[0]) for dot in dots if len(dot) >= 3} == set(PARTIAL[name][site])
        assert f"of {n_units(name, site):,} {site} units pruned" in dashboard(run).to_json()

    def test_it_resumes_only_as_it_began(self, run, folder):
        name, site, run = run
        options = {"site": site, "fraction": 0.25, "steps": 4, "bridge": True, "dtype": "float32", "progress": False}
        again = dissect.prune(str(folder / name), **SIDES, out=run.path, skip_layers=True, **options)
        assert again.mask() == run.mask()
        with pytest.raises(DissectError, match=r"another configuration \(skip_layers True there, False here\)"):
            dissect.prune(str(folder / name), **SIDES, out=run.path, **options)

    def test_random_runs_match_its_layers(self, run, folder, tmp_path):
        name, site, run = run
        options = {"site": site, "fraction": 0.25, "steps": 4, "bridge": True, "skip_layers": True, "dtype": "float32"}
        for selector, match in (("random", None), ("layer-random", str(run.path))):
            how = options | {"selector": selector, "match": match, "progress": False}
            found = dissect.prune(str(folder / name), **SIDES, out=tmp_path / selector, **how)
            assert found.mask() == run.mask()
            if match:
                assert found.history[1].per_layer == run.history[1].per_layer

    def test_the_explorer_and_cards(self, run):
        name, site, run = run
        model = loaded(name)
        explorer = dissect.explore(model, **SIDES)
        try:
            explorer.site.value = site
            explorer.fraction.value = 0.5
            assert len(explorer.choice.mask) == round(0.5 * n_units(name, site))
            assert f"of {len(PARTIAL[name][site])} layers" in describe(explorer.choice)
            assert explorer.measure().total == n_units(name, site)
            nowhere = (site, absent(name, site)[0], *(0 for _ in SITES[site].unit))
            with pytest.raises(DissectError, match=f"has no site '{site}', only layer"):
                explorer.add([nowhere])
            assert "<svg" in stand_in(explorer.choice, "", "explorer")
        finally:
            explorer.close()
        if site != "head":
            sides = [SIDES[side][0] for side in SIDES]
            unit = (site, absent(name, site)[0], *(0 for _ in SITES[site].unit))
            with pytest.raises(DissectError, match=f"has no site '{site}', only layer"):
                dissect.neuron_card(model, unit, *sides, progress=False)
