"""What a folder would be loaded as, from its config alone."""

from __future__ import annotations

import shutil

import pytest
import torch
import transformers

from dissect import SITES, load_model
from dissect.cli.main import main
from dissect.models.describe import describe_model
from dissect.models.find import find_model
from dissect.models.options import LoadOptions
from tests.support import tiny
from tests.support.models import needs_hooked_transformer

BRIDGE = LoadOptions(bridge=True)


@pytest.fixture
def without_weights(folder_of, tmp_path):
    """A family's folder that lacks its weights."""

    def folder(family):
        return shutil.copytree(folder_of(family), tmp_path / family, ignore=shutil.ignore_patterns("*.safetensors"))

    return folder


@pytest.mark.parametrize("family", ["llama", "opt", "roberta", "gpt2"])
def test_the_sites_are_those_of_the_loaded_model(without_weights, folder_of, family):
    found = describe_model(find_model(without_weights(family)))
    model = load_model(folder_of(family), dtype="float32")
    assert found.loads_as == type(model).__name__
    assert found.n_layers == model.cfg.n_layers
    for name, site in SITES.items():
        if site.hook_name(0) in model.hook_dict:
            assert found.sites[name] == site.unit_shape(model.cfg)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "phi3"])
def test_a_bridge_has_the_same(without_weights, family):
    folder = without_weights(family)
    as_bridge = describe_model(find_model(folder, BRIDGE))
    assert as_bridge.loads_as == "TransformerBridge"
    assert as_bridge.sites == describe_model(find_model(folder)).sites


def test_a_site_that_is_not_there_is_said(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": tiny.VOCAB, "state_size": 4}
    config = transformers.MambaConfig(**sizes, architectures=["MambaForCausalLM"])
    config.save_pretrained(tmp_path)
    found = describe_model(find_model(tmp_path, BRIDGE))
    assert all(isinstance(site, str) and site.startswith("none") for site in found.sites.values())
    assert torch.get_default_dtype() == torch.float32


@needs_hooked_transformer
def test_the_command(without_weights, capsys):
    folder = str(without_weights("llama"))
    assert main(["models", folder]) == 0
    said = capsys.readouterr().out
    assert f"llama: LlamaForCausalLM in {folder}, loaded as a HookedTransformer\n3 layers" in said
    assert "value        2 x 16" in said
    assert main(["models", folder, "--bridge"]) == main(["models", "--bridge", "True", folder]) == 0
    assert capsys.readouterr().out.count("loaded as a TransformerBridge") == 2
    assert main(["models", folder, "--no-bridge"]) == 0
    assert "loaded as a HookedTransformer" in capsys.readouterr().out
    assert main(["models", "--revision", "x"]) == main(["models", folder, "--revision", "x"]) == 2
