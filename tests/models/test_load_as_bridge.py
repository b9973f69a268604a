"""Models that `load_model` makes a `TransformerBridge` of: by name, in memory, quantized, spread."""

from __future__ import annotations

import pytest
import torch
import transformers

import dissect
from dissect import DissectError, load_model
from dissect.models import parity
from dissect.models.classes import has_hooked_transformer
from dissect.models.fingerprint import model_fingerprint
from dissect.models.source import ModelSource
from tests.support import tiny
from tests.support.bridges import tiny_bridge, transformers_model
from tests.support.models import needs_hooked_transformer

TOKENS = torch.arange(6, 30)[None]
QUICK = {"fraction": 0.1, "steps": 1, "tokens": 60, "context": 16, "dtype": "float32", "progress": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of a tiny model of any family, with a tokenizer."""
    root = tmp_path_factory.mktemp("bridged")

    def folder(family):
        path = root / family
        if not path.is_dir():
            transformers_model(family).save_pretrained(path)
            tiny.tiny_tokenizer(path)
        return path

    return folder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"the river {number} rose above the town" for number in range(200)))
    return {"forget": str(path), "retain": str(path)}


def logits(model):
    with torch.no_grad():
        found = model(TOKENS)
    return getattr(found, "logits", found)


class TestByName:
    @pytest.mark.parametrize("family", ["llama", "olmo2", "bert"])  # others: test_architecture_table
    def test_its_logits_are_those_of_transformers(self, folders, family):
        model, theirs = (
            load_model(folders(family), bridge=True, dtype="float32"),
            logits(transformers_model(family).eval()),
        )
        assert (logits(model) - theirs).abs().max() < 1e-4 * theirs.abs().max()
        assert type(model).__name__ == "TransformerBridge"
        assert model.tokenizer.padding_side == "right"
        assert not model.training
        assert model.source.options.bridge

    def test_its_weights_are_its_own(self, folders):
        model = load_model(folders("llama"), bridge=True, dtype="float32")
        assert (model.source.transformers_model(torch.float32)(TOKENS).logits - logits(model)).abs().max() < 1e-4
        before = logits(model)
        dissect.bake(model, dissect.Mask.of(model, "mlp", [(0, 1)]))
        assert (before - logits(model)).abs().max() > 0
        assert torch.equal(before, logits(load_model(folders("llama"), bridge=True, dtype="float32")))

    def test_another_function_is_refused(self, folders, monkeypatch):
        monkeypatch.setitem(parity.TOLERANCE, torch.float32, -1.0)
        with pytest.raises(DissectError, match="logits differ from transformers'"):
            load_model(folders("llama"), bridge=True, dtype="float32")

    @needs_hooked_transformer
    def test_an_architecture_that_only_a_bridge_takes_says_so(self, folders):
        with pytest.raises(DissectError, match=r"Olmo2ForCausalLM is not among .*; give bridge=True \(--bridge\)"):
            load_model(folders("olmo2"))

    def test_what_no_bridge_is_for(self, folders, tmp_path):
        transformers.T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(tmp_path)
        with pytest.raises(DissectError, match=r"unknown architecture for a TransformerBridge .*'T5ForConditional"):
            load_model(tmp_path, bridge=True)
        with pytest.raises(DissectError, match=r"n_devices=2|needs 2 GPUs"):
            load_model(folders("llama"), bridge=True, n_devices=2)

    @needs_hooked_transformer
    @pytest.mark.parametrize("option", [{"quantization": "4bit"}, {"device_map": "auto"}])
    def test_what_is_for_bridges_says_so(self, folders, option):
        with pytest.raises(DissectError, match=r"is for a TransformerBridge alone; give bridge=True"):
            load_model(folders("llama"), **option)

    @needs_hooked_transformer
    def test_a_run_is_not_resumed_or_repeated_with_the_other_class(self, folders, texts, tmp_path):
        run = dissect.prune(str(folders("llama")), bridge=True, out=tmp_path / "run", **texts, **QUICK)
        other = dissect.prune(str(folders("llama")), out=tmp_path / "other", **texts, **QUICK)
        assert (run.mask()["mlp"] == other.mask()["mlp"]).all()
        assert run.record["loading"]["class"] == "TransformerBridge"
        assert dissect.rerun(run, progress=False).same
        with pytest.raises(DissectError, match=r"another configuration \(bridge True there, None here\)"):
            dissect.prune(str(folders("llama")), out=tmp_path / "run", **texts, **QUICK)
        hooked = load_model(folders("llama"), dtype="float32")
        with pytest.raises(DissectError, match=r"loading.class: TransformerBridge then, HookedTransformer"):
            dissect.prune(hooked, out=tmp_path / "run", **texts, **QUICK)
        with pytest.raises(DissectError, match=r"bridge=True is for a model by name"):
            dissect.prune(hooked, bridge=True, out=tmp_path / "run", **texts, **QUICK)


class TestInMemory:
    def test_a_transformers_model_is_copied(self, folders):
        given = transformers.AutoModelForCausalLM.from_pretrained(folders("olmo2"))
        before = model_fingerprint(given)
        model = load_model(given, bridge=True)
        assert (logits(model) - logits(given)).abs().max() < 1e-4
        dissect.bake(model, dissect.Mask.of(model, "mlp", [(0, 1)]))
        assert model_fingerprint(given) == before
        assert type(given.model.layers[0].mlp).__module__.startswith("transformers.")

    @pytest.mark.parametrize("family", ["llama", "gpt-neox", "phi3", "mixtral"])
    def test_a_bridge_is_taken_itself(self, family):
        bridge = tiny_bridge(family)
        assert load_model(bridge) is bridge
        windows = dissect.Windows.from_tokens(TOKENS)
        assert dissect.collect(bridge, windows, sites="pre_out", progress=False)["pre_out"].count == 23

    def test_a_bridge_to_another_function_is_refused_and_stays_refused(self):
        bridge = tiny_bridge("llama")
        bridge.blocks[1].mlp.register_forward_hook(lambda module, args, out: out * 2)
        with pytest.raises(DissectError, match="logits differ from transformers'"):
            load_model(bridge)
        with pytest.raises(DissectError, match=r"has not been checked; give dissect what dissect.load_model"):
            dissect.collect(bridge, dissect.Windows.from_tokens(TOKENS))


class TestQuantized:
    @pytest.fixture(autouse=True)
    def needs_bitsandbytes(self):
        pytest.importorskip("bitsandbytes", reason="it makes the weights of 4 and 8 bits")

    @pytest.mark.parametrize("bits", ["4bit", "8bit"])
    def test_from_loading_to_a_run(self, folders, texts, tmp_path, bits):
        folder, options = str(folders("llama-in-blocks")), {"bridge": True, "quantization": bits}
        model, plain = load_model(folder, dtype="float32", **options), load_model(folder, dtype="float32")
        assert (logits(model) - logits(plain)).abs().max() > 0.01
        assert not model.refused_sites
        run = dissect.prune(folder, out=tmp_path / "run", **options, **texts, **QUICK)
        with dissect.ablated(model, run.mask()):
            test = dissect.load_windows(texts["forget"], model, tokens=60, context=16, split="test")
            assert dissect.evaluate(model, test, progress=False)["loss"] == run.history[1].metrics["forget"]["loss"]
        with pytest.raises(DissectError, match=r"cannot be read .*; prune it by hooks \(dissect.ablate\)"):
            dissect.bake(model, run.mask())
        with pytest.raises(DissectError, match=r"another configuration \(quantization"):
            dissect.prune(folder, bridge=True, out=tmp_path / "run", **texts, **QUICK)

    def test_a_folder_that_is_quantized_already(self, folders, tmp_path):
        options = {"bridge": True, "dtype": "float32"}
        model = load_model(folders("llama-in-blocks"), quantization="4bit", **options)
        model.source.transformers_model(torch.float32).save_pretrained(tmp_path)
        assert (logits(load_model(tmp_path, **options)) - logits(model)).abs().max() < 1e-5
        with pytest.raises(DissectError, match="quantized already"):
            load_model(tmp_path, quantization="8bit", **options)
        if has_hooked_transformer():
            with pytest.raises(DissectError, match=r"quantized \(bitsandbytes\), which a HookedTransformer cannot be"):
                load_model(tmp_path)


def test_a_device_map(folders):
    model = load_model(folders("llama"), bridge=True, device_map="auto", dtype="float32")
    assert (logits(model) - logits(load_model(folders("llama"), dtype="float32"))).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_offloaded_weights_are_read_and_recorded_where_accelerate_keeps_them(family, monkeypatch, folders):
    """What `device_map="auto"` does to layers that a GPU has no room for, without a GPU."""
    import accelerate

    plain = load_model(folders(family), bridge=True, dtype="float32")
    read = ModelSource.mapped_model
    monkeypatch.setattr(ModelSource, "mapped_model", lambda *given: accelerate.cpu_offload(read(*given), "cpu"))
    model = load_model(folders(family), bridge=True, device_map="auto", dtype="float32", device="cpu")
    assert all(parameter.is_meta for parameter in model.original_model.parameters())
    assert not model.refused_sites
    assert model_fingerprint(model) == model_fingerprint(plain)
    windows = dissect.Windows.from_tokens(TOKENS)
    mask = dissect.Mask.of(plain, "mlp", [(0, 1), (1, 5)])
    losses = []
    for each in (plain, model):
        with dissect.ablated(each, mask):
            losses.append(dissect.evaluate(each, windows, progress=False)["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    with pytest.raises(DissectError, match=r"cannot be read .*; prune it by hooks"):
        dissect.bake(model, mask)
