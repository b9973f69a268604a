"""Adapters of PEFT: merged, found alone with their base, and never left out."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import dissect
from dissect import DissectError, load_model
from dissect.models import adapters
from dissect.models.find import find_model

peft = pytest.importorskip("peft", reason="adapters are merged with PEFT")
TOKENS = torch.arange(6, 30)[None]


def adapted(folder, **changes):
    """A tiny model with an adapter around it whose every weight is random, as PEFT computes it."""
    torch.manual_seed(1)
    config = {"r": 4, "target_modules": ["q_proj", "v_proj", "up_proj"], "init_lora_weights": False} | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, for PEFT's authors
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        return peft.get_peft_model(model, peft.LoraConfig(**config)).eval()


@pytest.fixture(scope="module")
def base(folder_of):
    return folder_of("llama")


@pytest.fixture(scope="module")
def theirs(base):
    return adapted(base)


@pytest.fixture(scope="module")
def saved(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters") / "poems"
    theirs.save_pretrained(path)
    return path


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the adapter's folder that a test may change."""
    return shutil.copytree(saved, tmp_path / "poems")


def distance(model, other):
    with torch.no_grad():
        return (model(TOKENS) - getattr(other(TOKENS), "logits", other(TOKENS))).abs().max()


class TestMerged:
    def test_the_logits_are_those_that_peft_computes(self, base, saved, theirs):
        model = load_model(base, adapter=saved, dtype="float32")
        assert distance(model, theirs) < 1e-4
        assert distance(model, load_model(base, dtype="float32")) > 0.1
        assert model.cfg.model_name == "llama+poems"

    def test_a_folder_that_holds_an_adapter_alone_finds_its_base(self, base, saved, theirs):
        model = load_model(saved, dtype="float32")
        assert distance(model, theirs) < 1e-4
        assert (model.source.location, model.source.options.adapter) == (str(base), str(saved))

    def test_a_base_beside_the_adapter_is_found_from_anywhere(self, base, folder):
        shutil.copytree(base, folder / "base")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "base"}))
        assert find_model(folder).location == str(folder / "base")

    def test_beside_full_weights_it_is_merged_once_where_it_is_asked_for(self, base, folder, theirs):
        shutil.copytree(base, folder, dirs_exist_ok=True)
        with pytest.raises(DissectError, match="full weights and an adapter"):
            load_model(folder)
        assert distance(load_model(folder, adapter=folder, dtype="float32"), theirs) < 1e-4

    def test_an_adapters_own_tokenizer_is_taken(self, base, folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(["<poem>"])
        tokenizer.save_pretrained(folder)
        assert "<poem>" in load_model(folder, dtype="float32").tokenizer.get_vocab()
        assert "<poem>" not in load_model(base, dtype="float32").tokenizer.get_vocab()

    def test_another_adapter_is_another_model(self, base, folder):
        before = find_model(folder).checksum
        assert before != find_model(base).checksum
        weights = load_file(folder / "adapter_model.safetensors")
        save_file({name: -weight for name, weight in weights.items()}, folder / "adapter_model.safetensors")
        assert find_model(folder).checksum != before


class TestRefused:
    def test_a_folder_without_one(self, base):
        with pytest.raises(DissectError, match=r"no adapter at .*adapter_config.json"):
            load_model(base, adapter=base)

    def test_one_that_lacks_weights(self, base, folder):
        weights = load_file(folder / "adapter_model.safetensors")
        weights.pop(next(name for name in weights if "layers.1.mlp.up_proj.lora_A" in name))
        save_file(weights, folder / "adapter_model.safetensors")
        with pytest.raises(DissectError, match=r"cannot merge .*missing adapter keys.*layers.1.mlp.up_proj"):
            load_model(base, adapter=folder)

    def test_weights_without_a_place(self, base, folder):
        weights = load_file(folder / "adapter_model.safetensors")
        weights["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.ones(4, 48)
        save_file(weights, folder / "adapter_model.safetensors")
        with pytest.raises(DissectError, match=r"no place in this model: .*layers.9"):
            load_model(base, adapter=folder)

    def test_one_of_another_model(self, folder_of, saved):
        with pytest.raises(DissectError, match=r"cannot merge the adapter .* into this OPTForCausalLM"):
            load_model(folder_of("opt"), adapter=saved)

    def test_one_that_changes_no_weights(self, base, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = transformers.AutoModelForCausalLM.from_pretrained(base)
            config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
            peft.get_peft_model(model, config).save_pretrained(tmp_path)
        with pytest.raises(DissectError, match=r"\(PROMPT_TUNING\) changes no weights"):
            load_model(base, adapter=tmp_path)

    def test_one_that_does_not_say_what_it_is_of(self, folder):
        (folder / "adapter_config.json").write_text("{}")
        with pytest.raises(DissectError, match=r"does not say .*dissect.load_model\(base, adapter="):
            load_model(folder)

    def test_an_adapter_of_an_adapter(self, saved):
        with pytest.raises(DissectError, match="is an adapter itself"):
            load_model(saved, adapter=saved)

    def test_without_peft(self, saved, monkeypatch):
        monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(DissectError, match=r"pip install 'dissect\[peft\]'"):
            load_model(saved)


def test_a_run_of_an_adapted_model_is_repeated_with_its_adapter(base, saved, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"the river {number} rose above the town" for number in range(200)))
    asked = {"forget": str(text), "retain": str(text), "tokens": 60, "context": 16, "fraction": 0.1, "steps": 1}
    quick = {"dtype": "float32", "progress": False}
    run = dissect.prune(str(base), adapter=saved, out=tmp_path / "run", **asked, **quick)
    assert run.config.adapter == str(saved)
    assert dissect.rerun(run, progress=False).same
    loaded = load_model(saved, dtype="float32")
    assert dissect.prune(loaded, out=tmp_path / "run", **asked, **quick).finished  # the same model in memory
    with pytest.raises(DissectError, match=r"another configuration \(adapter .*None here\)"):
        dissect.prune(str(base), out=tmp_path / "run", **asked, **quick)
    with pytest.raises(DissectError, match="began with another model"):
        dissect.prune(load_model(base, dtype="float32"), out=tmp_path / "run", **asked, **quick)
