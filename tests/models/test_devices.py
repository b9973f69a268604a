"""Models on several GPUs, as far as a machine without them can tell: where parts go, and what is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from transformer_lens.utilities.multi_gpu import get_device_for_block_index

from dissect import DissectError, Mask, ablated, collect, evaluate, load_model
from dissect.backend.forward import TOKENS_PER_GPU_BATCH, default_batch_size, tokens_that_fit
from dissect.cli import main as cli
from dissect.models import devices
from dissect.models.convert import places
from tests.support.models import tiny_transformer
from tests.support.windows import random_windows


def spread(n_layers, n_devices):
    """The index of the GPU of every part of a tiny model, by name, blocks as their number."""
    model = tiny_transformer(n_layers=n_layers)
    model.cfg.device, model.cfg.n_devices = "cuda", n_devices
    names = {module: name for name, module in model.named_modules()}
    at = {names[part]: where.index for part, where in places(model)}
    covered = {parameter for part, _ in places(model) for parameter in part.parameters()}
    assert covered == set(model.parameters())
    for layer in range(n_layers):  # where TransformerLens' forward pass moves the residual stream
        assert at[f"blocks.{layer}"] == get_device_for_block_index(layer, model.cfg).index
    return at


@pytest.mark.parametrize(("n_layers", "n_devices"), [(4, 2), (5, 3), (3, 2)])
def test_parts_are_where_the_forward_pass_looks_for_them(n_layers, n_devices):
    at = spread(n_layers, n_devices)
    assert set(at.values()) == set(range(n_devices))
    assert at["embed"] == at["pos_embed"] == at["blocks.0"] == 0
    assert at["ln_final"] == at["unembed"] == at[f"blocks.{n_layers - 1}"] == n_devices - 1


def test_one_device_takes_all_of_it():
    model = tiny_transformer()
    assert places(model) == [(model, torch.device("cpu"))]


def test_our_passes_go_through_a_model_that_is_spread():
    """TransformerLens' own forward pass, which moves the residual stream from device to device (here there is one)."""
    whole, parts, windows = tiny_transformer(), tiny_transformer(), random_windows()
    parts.cfg.n_devices = 2
    mask = Mask({"mlp": torch.rand(3, 20, generator=torch.Generator().manual_seed(0)) < 0.5})
    moved = []
    parts.blocks[1].hook_resid_pre.add_hook(lambda z, hook: moved.append(z.device))
    found = []
    for model in (whole, parts):
        with ablated(model, mask):
            stats = collect(model, windows, progress=False)
            found.append(
                [*evaluate(model, windows, progress=False).values(), *stats["value"]["sum"].flatten().tolist()]
            )
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-5)
    assert moved


@pytest.mark.parametrize(
    ("n_devices", "gpus", "options", "message"),
    [
        (0, 2, {}, "n_devices must be a whole number, 1 or more, got 0"),
        (3, 2, {}, "n_devices=3 needs 3 GPUs, there are 2 on device 'cuda'"),
        (2, 2, {"encoder": True}, "a masked model stays on one device"),
    ],
)
def test_what_cannot_be_spread_is_refused(monkeypatch, n_devices, gpus, options, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(DissectError, match=message):
        devices.check_n_devices(n_devices, torch.device("cuda"), **{"encoder": False, **options})


def test_processes_on_a_machine_do_not_share_their_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    devices.check_n_devices(2, torch.device("cuda"), encoder=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(DissectError, match="nproc-per-node 1"):
        devices.check_n_devices(2, torch.device("cuda"), encoder=False)


def test_the_option_reaches_the_loader(folder_of, tmp_path, capsys):
    folder = folder_of("llama")
    with pytest.raises(DissectError, match="n_devices=2 needs 2 GPUs, there are 0 on device 'cpu'"):
        load_model(folder, device="cpu", n_devices=2)
    corpora = ["--forget", "python-stdlib", "--retain", "python-stdlib", "--out", str(tmp_path / "run")]
    assert cli.main(["prune", "--model", str(folder), *corpora, "--device", "cpu", "--n-devices", "2"]) == 2
    assert "n_devices=2 needs 2 GPUs" in capsys.readouterr().err


def test_batches_on_a_gpu_go_by_its_memory(model):
    """Calculated; a test cannot look at a GPU's memory here."""
    fits = partial(tokens_that_fit, model.cfg)
    assert fits(16, 80 << 30) == TOKENS_PER_GPU_BATCH
    assert 0 < fits(1024, 1 << 24) < fits(16, 1 << 24) < TOKENS_PER_GPU_BATCH
    a_token = 4 * (8 * model.cfg.d_model + 4 * model.cfg.d_mlp) + 8 * model.cfg.n_heads * 16 + 8 * model.cfg.d_mlp
    assert fits(16, 1 << 24) == (1 << 24) // 8 // a_token
    assert default_batch_size(model, 16) == 2048 // 16


def test_apples_gpus_are_taken_where_they_are_asked_for_with_a_recent_torch(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert devices.default_device().type == "cpu"
    devices.check_mps("2.13.0+cpu")
    with pytest.raises(DissectError, match=r"'mps' needs torch 2.9 or later, here is 2.8.1"):
        devices.check_mps("2.8.1")
