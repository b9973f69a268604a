"""SmolLM2 as its users have it: with an adapter, in memory, in few bits; from loading to a report (mostly `--long`)."""

from __future__ import annotations

import copy

import pytest
import torch

import dissect
from dissect.base.errors import DissectError
from dissect.cli.main import main
from dissect.models.parity import check_parity

OPTIONS = {"steps": 2, "fraction": 0.05, "tokens": 400, "context": 128, "progress": False}
CORPORA = {"forget": "python-stdlib", "retain": "wiki-en"}


@pytest.fixture(scope="module")
def plain(long):
    """SmolLM2 as transformers has it."""
    if not long:
        pytest.skip("takes minutes: make test-long")
    return dissect.load_model("smollm2-135m", dtype="float32").source.transformers_model(torch.float32)


def assert_selective(run, tmp_path):
    """Something of both texts is predicted at first, more of code than of prose is lost, and the report says so."""
    assert run.history[0].metrics["forget"]["top1"] > 0.3
    assert run.summary().difference > 0.1
    page = tmp_path / "page.html"
    assert main(["report", str(run.path), "-o", str(page)]) == 0
    assert f"{100 * run.summary().difference:.1f}" in page.read_text()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT's own
def test_with_an_adapter(plain, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed (extra peft)")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["down_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(plain), config)
    adapted.save_pretrained(tmp_path / "adapter")
    model = dissect.load_model("smollm2-135m", adapter=tmp_path / "adapter", dtype="float32")
    tokens = torch.arange(100, 130)[None]
    assert (model(tokens) - plain(tokens).logits).abs().max() > 1e-3
    run = dissect.prune(
        "smollm2-135m", adapter=str(tmp_path / "adapter"), dtype="float32", out=tmp_path / "run", **CORPORA, **OPTIONS
    )
    assert_selective(run, tmp_path)


def test_in_memory(plain, tmp_path):
    tokenizer = dissect.load_model("smollm2-135m").tokenizer
    model = dissect.load_model(plain, tokenizer=tokenizer)
    assert_selective(dissect.prune(model, out=tmp_path / "run", **CORPORA, **OPTIONS), tmp_path)


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_in_few_bits(plain, tmp_path, bits):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra quantized)")
    run = dissect.prune("smollm2-135m", bridge=True, quantization=bits, out=tmp_path / "run", **CORPORA, **OPTIONS)
    assert_selective(run, tmp_path)
    exported = dissect.export(run, tmp_path / "exported")
    again = dissect.load_model(exported.path, dtype="float32")
    units = run.mask().units("mlp")
    assert all(not again.blocks[layer].mlp.W_out[unit].any() for layer, unit in units[:20])


def test_8_bits_in_bfloat16_are_not_taken_for_another_function():
    """Products in 8 bits turn bfloat16's rounding into differences that only a wrong model would have otherwise."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra quantized)")
    model = dissect.load_model("smollm2-135m", bridge=True, quantization="8bit", dtype="bfloat16")
    twin = model.source.mapped_model(torch.bfloat16, torch.device(model.cfg.device))
    check_parity(model, twin)
    for module in twin.model.layers[:2]:
        module.mlp.register_forward_hook(lambda module, args, out: 0 * out)
    with pytest.raises(DissectError, match="logits differ from transformers'"):
        check_parity(model, twin)
