"""Bridged models as transformers folders: no table of a family's layout is needed."""

from __future__ import annotations

import pytest
import torch
import transformers

import dissect
from dissect import DissectError, Mask
from tests.support import tiny
from tests.support.bridges import transformers_model
from tests.support.mixtures import mixture
from tests.support.named_runs import fill, run_of

FAMILIES = ["llama", "gpt2", "olmo2"]  # the others, from memory: test_architecture_table
TOKENS = torch.arange(3, 27).reshape(2, 12)


def saved(family, folder):
    """The folder of a tiny model and its tokenizer."""
    transformers_model(family).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder) if hasattr(tiny, "tokenizer") else None
    return folder


def logits_of(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_cuts_what_hooks_and_weights_cut(tmp_path, family):
    model = dissect.load_model(saved(family, tmp_path / "source"), dtype="float32", bridge=True)
    masks = [Mask.of(model, "mlp", [(0, 3), (1, 5)]), Mask.of(model, "pre_out", [(1, 0, 2), (0, 1, 1)])]
    mask = masks[0] | masks[1] | Mask.of(model, "value", [(0, 0, 3)])
    with torch.no_grad():
        before = model(TOKENS)
        with dissect.ablated(model, mask):
            cut = model(TOKENS)
    dissect.bake(model, mask)
    folder = dissect.export(model, tmp_path / "exported").path
    effect = (cut - before).abs().max()
    assert effect > 1e-3
    assert (logits_of(folder) - cut).abs().max() < 1e-4 * effect
    assert (logits_of(tmp_path / "source") - before).abs().max() < 1e-4 * effect
    again = dissect.load_model(folder, dtype="float32", bridge=True)
    with torch.no_grad():
        assert (again(TOKENS) - cut).abs().max() < 1e-4 * effect


def test_a_mixture_is_exported_and_taken_again(tmp_path):
    """Its copies are without our function for experts, which reads hook points that a bridge alone has."""
    model = dissect.load_model(mixture("mixtral"), bridge=True)
    mask = Mask.of(model, "expert", [(0, 1)]) | Mask.of(model, "expert_mlp", [(1, 2, 3)])
    with torch.no_grad():
        before = model(TOKENS)
        with dissect.ablated(model, mask):
            cut = model(TOKENS)
    dissect.bake(model, mask)
    folder = dissect.export(model, tmp_path / "exported").path
    assert (cut - before).abs().max() > 1e-3
    assert torch.allclose(logits_of(folder), cut, atol=1e-5)
    assert "dissect" not in (folder / "config.json").read_text()
    assert dissect.load_model(model) is model


def test_a_run_of_a_bridge(tmp_path):
    run = run_of(fill(tmp_path), "run", bridge=True)
    exported = dissect.export(run, tmp_path / "exported")
    model = dissect.load_model(tmp_path / "model", dtype="float32")
    with torch.no_grad(), dissect.ablated(model, run.mask()):
        cut = model(TOKENS)
    assert (logits_of(exported.path) - cut).abs().max() < 1e-4 * cut.abs().max()
    assert (exported.path / "tokenizer.json").is_file()
    assert "base_model: model" in (exported.path / "README.md").read_text()
    with pytest.raises(DissectError, match="leave out shrink"):
        dissect.export(run, tmp_path / "smaller", shrink=True)


def test_a_model_that_was_in_memory_takes_its_tokenizer_along(tmp_path):
    hf_model = transformers_model("llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.save_tiny("llama", tmp_path / "source"))
    model = dissect.load_model(hf_model, tokenizer=tokenizer, bridge=True)
    dissect.bake(model, Mask.of(model, "mlp", [(0, 3)]))
    folder = dissect.export(model, tmp_path / "exported").path
    assert transformers.AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
    with torch.no_grad():
        assert torch.allclose(logits_of(folder), model(TOKENS), atol=1e-5)


def test_what_a_folder_cannot_hold_is_refused(tmp_path):
    model = dissect.load_model(saved("gpt-neox", tmp_path / "neox"), dtype="float32", bridge=True)
    dissect.rotate_to_svd(model)
    with pytest.raises(DissectError, match="have no place in a transformers model"):
        dissect.export(model, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
