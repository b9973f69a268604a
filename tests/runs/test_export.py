"""An exported folder is the source's, but for the weights and their sizes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from huggingface_hub import ModelCard

import dissect
from dissect import DissectError, Mask
from dissect.runs.model_card import _cell
from tests.support import tiny
from tests.support.named_runs import fill, run_of

GENERATION = {"eos_token_id": [2, 0], "do_sample": True, "temperature": 0.6}
TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}{% endfor %}"
BESIDE = {
    "generation_config.json": json.dumps(GENERATION),
    "chat_template.jinja": TEMPLATE,
    "LICENSE": "of the source",
    "vocab.extra.txt": "a\nb\n",
}
LEFT_OUT = {
    "README.md": "scores 99%",
    "modeling_own.py": "raise SystemExit",
    "training_args.bin": "?",
    "optimizer.pt": "?",
    "tf_model.h5": "?",
    "model.onnx": "?",
    "other.index.json": "{}",
    ".gitattributes": "?",
}


@pytest.fixture
def source(tmp_path):
    """A model whose tokenizer pads on the left and names neither BOS nor padding, which its config does."""
    folder = tiny.save_tiny("llama", tmp_path / "source")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings = {name: value for name, value in settings.items() if name not in ("bos_token", "pad_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left"}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    for name, text in (BESIDE | LEFT_OUT).items():
        (folder / name).write_text(text)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("other")
    return folder


def exported(source, shrink):
    """The source exported; shrunk, with a fifth of its units gone."""
    model = dissect.load_model(source, dtype="float32")
    if shrink:
        dissect.bake(model, Mask.of(model, "mlp", [(layer, unit) for layer in range(3) for unit in range(16)]))
    return dissect.export(model, source.parent / "exported", shrink=shrink).path


@pytest.mark.parametrize("shrink", [False, True])
def test_only_weights_and_their_sizes_change(source, shrink):
    folder = exported(source, shrink)
    tokenizers = [transformers.AutoTokenizer.from_pretrained(path) for path in (source, folder)]
    for field in ("padding_side", "special_tokens_map", "chat_template"):
        assert getattr(tokenizers[0], field) == getattr(tokenizers[1], field), field
    assert tokenizers[1].padding_side == "left"
    assert tokenizers[1].bos_token is None
    configs = [transformers.GenerationConfig.from_pretrained(path).to_dict() for path in (source, folder)]
    assert configs[0] == configs[1]
    assert configs[1]["eos_token_id"] == [2, 0]
    same = [name for name in os.listdir(source) if "token" in name] + list(BESIDE)
    for name in (*same, "additional_chat_templates/rag.jinja"):
        assert (folder / name).read_bytes() == (source / name).read_bytes(), name
    assert "scores 99%" not in (folder / "README.md").read_text()
    written = {"config.json", "model.safetensors", "README.md", "additional_chat_templates"}
    assert {path.name for path in folder.iterdir()} == {*same, *written}
    before, after = (json.loads((path / "config.json").read_text()) for path in (source, folder))
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == ({"intermediate_size"} if shrink else set())


@pytest.mark.parametrize("shrink", [False, True])
def test_without_a_generation_config_it_follows_from_the_config_as_before(source, shrink):
    (source / "generation_config.json").unlink()
    folder = exported(source, shrink)
    configs = [
        transformers.AutoModelForCausalLM.from_pretrained(path).generation_config.to_dict() for path in (source, folder)
    ]
    assert configs[0] == configs[1]


def test_a_batch_of_left_padded_prompts_goes_on_as_before(source):
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": "<pad>"}))
    told = []
    for folder in (source, exported(source, shrink=False)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        batch = tokenizer(["def f(x):", "The king of the island was an old man."], padding=True, return_tensors="pt")
        assert not batch["attention_mask"][0, 0]
        told.append(model.generate(**batch, do_sample=False, max_new_tokens=12))
    assert torch.equal(*told)
    wrong = transformers.AutoTokenizer.from_pretrained(source, padding_side="right")
    other = wrong(["def f(x):", "The king of the island was an old man."], padding=True, return_tensors="pt")
    assert not torch.equal(model.generate(**other, do_sample=False, max_new_tokens=12)[:, -12:], told[0][:, -12:])


def test_a_tokenizer_that_the_model_was_given_is_not_exported(source):
    model = dissect.load_model(source, dtype="float32")
    model.tokenizer = SimpleNamespace(padding_side="right")
    folder = dissect.export(model, source.parent / "exported").path
    assert (folder / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_the_users_own_tokenizer_stays_as_it_was(source):
    mine = transformers.AutoTokenizer.from_pretrained(source)
    model = dissect.load_model(source)
    assert (model.tokenizer.padding_side, model.tokenizer.bos_token) == ("right", "<s>")
    assert (mine.padding_side, mine.bos_token, mine.pad_token) == ("left", None, None)


def test_a_model_of_the_hub_shares_the_files_in_its_cache(source, tmp_path):
    repository = tmp_path / "hub" / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / "abc").symlink_to(source)
    program = (
        "import dissect, sys; model = dissect.load_model('someone/model', dtype='float32');"
        "dissect.export(model, sys.argv[1])"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "out")], env=environment, check=True)
    for name in ("tokenizer_config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


class TestFolder:
    def test_an_empty_one_that_is_there_is_taken(self, source, tmp_path):
        (tmp_path / "exported").mkdir()
        folder = exported(source, shrink=False)
        assert dissect.load_model(folder, dtype="float32").cfg.n_layers == 3
        assert {path.name for path in tmp_path.iterdir()} == {"source", "exported"}

    def test_a_link_to_an_empty_one(self, source, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "exported").symlink_to(tmp_path / "elsewhere")
        assert exported(source, shrink=False) == tmp_path / "elsewhere"
        assert (tmp_path / "exported" / "config.json").is_file()

    @pytest.mark.parametrize("name", ["a", ".hidden", "folder"])
    def test_a_full_one_is_not(self, source, tmp_path, name):
        (tmp_path / "exported").mkdir()
        (tmp_path / "exported" / name).write_text("kept") if name != "folder" else (
            tmp_path / "exported/folder"
        ).mkdir()
        with pytest.raises(DissectError, match="exists already and is not an empty folder"):
            exported(source, shrink=False)
        assert [path.name for path in (tmp_path / "exported").iterdir()] == [name]

    def test_a_file_is_not(self, source, tmp_path):
        (tmp_path / "exported").write_text("kept")
        with pytest.raises(DissectError, match="is not an empty folder"):
            exported(source, shrink=False)
        assert (tmp_path / "exported").read_text() == "kept"

    def test_the_folder_one_is_in_is_not(self, source, tmp_path, monkeypatch):
        (tmp_path / "exported").mkdir()
        monkeypatch.chdir(tmp_path / "exported")
        with pytest.raises(DissectError, match="the folder you are in"):
            exported(source, shrink=False)

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("of transformers")])
    def test_an_empty_one_stays_so_where_writing_fails(self, source, tmp_path, monkeypatch, error):
        (tmp_path / "exported").mkdir()

        def failing(*args):
            raise error

        monkeypatch.setattr(shutil, "copyfile", failing)
        with pytest.raises(DissectError, match="cannot write the model to"):
            exported(source, shrink=False)
        assert not list((tmp_path / "exported").iterdir())
        assert {path.name for path in tmp_path.iterdir()} == {"source", "exported"}


class TestModelCard:
    def test_it_says_what_a_run_did(self, tmp_path):
        run = run_of(fill(tmp_path), "run")
        card = ModelCard.load(dissect.export(run, tmp_path / "exported", step=1).path / "README.md")
        assert card.data.base_model == "model"
        assert card.data.library_name == "transformers"
        step, metrics = run.history[1], run.history[1].metrics
        assert f"| units pruned | {step.units:,} (" in card.text
        assert f"| units pruned in each layer | {', '.join(map(str, step.per_layer))} |" in card.text
        for side in ("forget", "retain"):
            before, after = run.history[0].metrics[side]["top1"], metrics[side]["top1"]
            assert (
                f"| {side} | top-1 accuracy | {before:.4f} | {after:.4f} | {100 * (1 - after / before):.1f}% |"
                in card.text
            )
        assert run.record["model"]["fingerprint"] in card.text
        assert f"{run.history[2].units:,} (" not in card.text
        assert "| forget text | `code` |" in card.text
        assert str(tmp_path) not in card.text

    def test_edits_by_hand_are_said_to_be_so(self, source):
        card = (exported(source, shrink=True) / "README.md").read_text()
        assert "edited by hand" in card
        assert "removed" in card
        assert "| retain" not in card

    @pytest.mark.parametrize(
        ("readme", "licence"),
        [
            ("---\nlicense: mit\n---\n", "mit"),
            ("---\nlicense: [\n---\n", None),
            ("no front matter", None),
            ("\xff", None),
        ],
    )
    def test_the_sources_licence_is_kept(self, source, readme, licence):
        (source / "README.md").write_bytes(readme.encode("latin-1"))
        assert ModelCard.load(exported(source, shrink=False) / "README.md").data.license == licence

    def test_names_cannot_break_the_table(self):
        assert _cell("a|b`c\nd") == "a\\|b'c d"
