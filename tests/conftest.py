"""Tiny models and windows that every test may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformer_lens import HookedTransformer, HookedTransformerConfig

from dissect import Windows
from tests import tiny

settings.register_profile("untimed", deadline=None)  # a shared machine is slow at times
settings.load_profile("untimed")

torch.set_num_threads(1)  # tiny tensors; threads would only wait for each other

LONGEST = ("test_notebooks.py", "test_jupyter.py", "test_faults.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: of several processes one then has them while the others do the rest."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


N_LAYERS, D_MLP, N_HEADS, N_VALUE_HEADS, D_HEAD, D_VOCAB = 3, 20, 4, 2, 6, 50


def tiny_transformer(seed: int = 0, **changes) -> HookedTransformer:
    """A random model with grouped queries, in float32 on the CPU."""
    torch.manual_seed(seed)
    fields = {
        "n_layers": N_LAYERS,
        "d_model": 16,
        "d_mlp": D_MLP,
        "n_heads": N_HEADS,
        "n_key_value_heads": N_VALUE_HEADS,
        "d_head": D_HEAD,
        "d_vocab": D_VOCAB,
        "n_ctx": 64,
        "act_fn": "gelu",
        "normalization_type": "LN",
        "model_name": "tiny",
        "original_architecture": "tiny",
        "device": "cpu",
        "initializer_range": 0.3,
    }
    model = HookedTransformer(HookedTransformerConfig(**fields | changes))
    for name, parameter in model.named_parameters():
        if ".b_" in name or name.endswith(".b"):
            torch.nn.init.normal_(parameter, std=0.3)  # so that nothing is accidentally zero
    return model.eval().requires_grad_(False)


def random_windows(n_windows: int = 6, context: int = 17, seed: int = 0, d_vocab: int = D_VOCAB) -> Windows:
    generator = torch.Generator().manual_seed(seed)
    return Windows.from_tokens(torch.randint(0, d_vocab, (n_windows, context), generator=generator))


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The transformers folder of a tiny family, saved when first asked for."""
    root = tmp_path_factory.mktemp("models")

    def folder(family: str) -> Path:
        path = root / family
        return path if path.is_dir() else tiny.save_tiny(family, path)

    return folder


@pytest.fixture
def model() -> HookedTransformer:
    return tiny_transformer()


@pytest.fixture
def windows() -> Windows:
    return random_windows()


def our_hooks(model: HookedTransformer) -> int:
    """Hooks of any kind on the model's hook points."""
    return sum(len(point.fwd_hooks) + len(point._forward_hooks) for point in model.hook_points())


def predictable_windows(
    model: HookedTransformer, vocabulary: range, seed: int, n_windows: int = 4, context: int = 17
) -> Windows:
    """Windows in which the model predicts many tokens rightly: mostly its own best guess, else one of `vocabulary`.

    Four documents a window.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(vocabulary.start, vocabulary.stop, (n_windows, context), generator=generator)
    own = torch.rand(n_windows, context, generator=generator) < 0.6
    tokens = drawn.clone()
    for position in range(1, context):
        guess = model(tokens[:, :position])[:, -1].argmax(-1)
        tokens[:, position] = torch.where(own[:, position], guess, drawn[:, position])
    documents = 4 * torch.arange(n_windows)[:, None] + 4 * torch.arange(context) // context
    return Windows.from_tokens(tokens, documents=documents)
