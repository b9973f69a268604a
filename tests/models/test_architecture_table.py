"""The table of architectures in the docs is true: each row is tried with the TransformerLens that is installed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers

from dissect import load_model
from dissect.models import parity
from dissect.models.architectures import ARCHITECTURES as HOOKED
from tests.support import architecture_table, tiny
from tests.support.architecture_table import (
    COLUMNS,
    INSTALLED,
    OF_VERSION,
    check_cuts,
    check_logits,
    row_of,
    write_rows,
    written_rows,
)
from tests.support.architectures import ARCHITECTURES

WRITTEN = written_rows()
REWRITE = "python -m tests.support.architecture_table writes the table anew"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_row_is_true(name, tmp_path):
    row = row_of(name, tmp_path / "exported")
    written = next((each for each in WRITTEN if each["architecture"] == row["architecture"]), {})
    assert row.items() <= written.items(), REWRITE


def test_each_architecture_has_one_row():
    assert len(WRITTEN) == len(ARCHITECTURES) == len({row["architecture"] for row in WRITTEN}), REWRITE


def test_many_are_taken_and_no_cell_is_empty():
    for column in OF_VERSION.values():
        assert sum(row[column] == "yes" for row in WRITTEN) > 50
    assert "?" not in {cell for row in WRITTEN for cell in row.values()}, f"{REWRITE}; run it with the other version"


def test_the_families_of_hooked_transformer_are_those_that_are_tried_there():
    """`tests/ablation/test_families.py` and `test_architectures.py` compare the same of each of these."""
    assert {type(build()).__name__ for build in tiny.FAMILIES.values()} == set(HOOKED)
    assert {row["architecture"].strip("`") for row in WRITTEN if row["HookedTransformer"] == "yes"} == set(HOOKED)


def test_rows_are_read_as_they_are_written(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n\n| old |\n| --- |\n| `A` |\n\nafter\n")
    monkeypatch.setattr(architecture_table, "PAGE", page)
    write_rows(WRITTEN[:2])
    assert written_rows() == WRITTEN[:2]
    write_rows([{"architecture": "`A`", "HookedTransformer": "no", INSTALLED: "yes", "sites": "none"}])
    assert sorted(written_rows()[0]) == sorted(COLUMNS)
    assert "?" in written_rows()[0].values()
    assert page.read_text().startswith("before\n\n| architecture")
    assert page.read_text().endswith("|\n\nafter\n")


def test_another_function_is_no_bridge(tmp_path, monkeypatch):
    monkeypatch.setitem(parity.TOLERANCE, torch.float32, -1.0)
    assert row_of("llama", tmp_path / "exported")[INSTALLED] == "no: other logits"


class TestWhatIsWrongIsSeen:
    @pytest.fixture
    def model(self):
        return load_model(tiny.FAMILIES["gpt2"](), bridge=True)

    def test_other_logits(self, model):
        with pytest.raises(AssertionError):
            check_logits(model, lambda tokens: model(tokens) * 1.001)

    def test_weights_that_are_not_cut(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(architecture_table, "bake", lambda *given: SimpleNamespace(restore=lambda: None))
        with pytest.raises(AssertionError):
            check_cuts(model, transformers.GPT2LMHeadModel, tmp_path / "exported")

    def test_a_folder_of_other_weights(self, model, tmp_path, monkeypatch):
        tiny.FAMILIES["gpt2"]().save_pretrained(tmp_path)
        monkeypatch.setattr(architecture_table, "export", lambda *given: SimpleNamespace(path=tmp_path))
        with pytest.raises(AssertionError):
            check_cuts(model, transformers.GPT2LMHeadModel, tmp_path)

    def test_cuts_without_effect(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(
            architecture_table, "some_units", lambda model, site: architecture_table.Mask.none(model, site)
        )
        with pytest.raises(AssertionError):
            check_cuts(model, transformers.GPT2LMHeadModel, tmp_path / "exported")
