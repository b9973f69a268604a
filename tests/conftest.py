"""Tiny models and windows that every test may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformer_lens import HookedTransformer

from dissect import Windows
from tests.support import tiny
from tests.support.models import tiny_transformer
from tests.support.windows import random_windows

settings.register_profile("untimed", deadline=None)  # a shared machine is slow at times
settings.load_profile("untimed")

torch.set_num_threads(1)  # tiny tensors; threads would only wait for each other

LONGEST = ("test_notebooks.py", "test_jupyter.py", "test_faults.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: of several processes one then has them while the others do the rest."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


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
