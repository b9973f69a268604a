"""Text as it is found: rubbish, one language or many, the same on both sides; and tokenizers of every kind."""

from __future__ import annotations

import json

import pytest
import torch

from dissect import DissectError, Run, load_windows
from dissect.data.splits import side
from tests.support.named_runs import run_of_texts
from tests.support.tokenizers import BOS, byte_tokenizer, stand_in, word_tokenizer


@pytest.fixture
def model():
    return stand_in(word_tokenizer(bos_token="<s>"))


def documents(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def some(start, stop, of="train"):
    """Documents of one side of the split."""
    texts = (f"w{number} w{number % 7} w1" for number in range(start, stop))
    return [text for text in texts if side(text) == of]


@pytest.mark.parametrize("texts", [[], [""], [" ", "\n\t "], [None, None]])
def test_nothing_to_read(model, tmp_path, texts):
    with pytest.raises(DissectError, match=r"has 0 tokens|cannot read"):
        load_windows(documents(tmp_path / "a.jsonl", texts), model, tokens=1, context=8)


def test_documents_of_one_token(model, tmp_path):
    texts = [f"w{number}" for number in range(100)]
    windows = load_windows(documents(tmp_path / "a.jsonl", texts), model, tokens=20, context=8)
    assert windows.n_kept == 20
    assert (windows.tokens[:, ::2] == BOS).all()


def test_an_enormous_document_is_read_in_parts(tmp_path):
    text = "é漢😀 " * 500_000
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    windows = load_windows(
        str(tmp_path / "a.jsonl"), stand_in(byte_tokenizer(), d_vocab=257), tokens=500, context=64, split=side(text)
    )
    assert windows.n_kept == 500


def test_bytes_that_are_no_text_and_languages_side_by_side(tmp_path):
    texts = ["def f(x):", "Der Fluß", "река", "河流", "النهر", "😀"] * 30
    raw = "\n\n".join(f"{number} {text}" for number, text in enumerate(texts)).encode() + b"\n\n\xff\xfe\x00broken"
    (tmp_path / "a.txt").write_bytes(raw)
    windows = load_windows(str(tmp_path / "a.txt"), stand_in(byte_tokenizer(), d_vocab=257), tokens=300, context=32)
    assert windows.n_kept == 300


def test_a_bos_in_the_middle_of_the_vocabulary(tmp_path):
    corpus = documents(tmp_path / "a.jsonl", some(0, 100))
    windows = load_windows(corpus, stand_in(word_tokenizer(bos_token="w3")), tokens=30, context=8)
    assert (windows.tokens[:, 0] == 3).all()


def test_a_vocabulary_larger_than_the_embedding_is_no_matter_until_it_is_used(tmp_path):
    tokenizer = word_tokenizer(bos_token="w0")
    small = documents(tmp_path / "small.jsonl", some(0, 60))
    assert load_windows(small, stand_in(tokenizer, d_vocab=60), tokens=30, context=8).n_kept == 30
    large = documents(tmp_path / "large.jsonl", some(60, 300))
    with pytest.raises(DissectError, match="the model's vocabulary has 60"):
        load_windows(large, stand_in(tokenizer, d_vocab=60), tokens=30, context=8)


def test_documents_on_both_sides_are_counted_and_said_once(tmp_path, folder_of, capfd):
    shared, mine, theirs = some(0, 30) + some(0, 30, "test"), some(30, 60), some(60, 90)
    forget = documents(tmp_path / "f.jsonl", [*shared, *mine, *some(30, 60, "test")])
    retain = documents(tmp_path / "r.jsonl", [*theirs, *shared, *some(60, 90, "test")])
    run = run_of_texts(forget, retain, tmp_path / "run", folder_of)
    counts = Run.load(run.path).record["shared_documents"]
    assert 0 < counts["train"] <= len(some(0, 30))
    assert 0 < counts["test"] <= len(some(0, 30, "test"))
    said = capfd.readouterr()
    assert (said.out + said.err).count("documents are on both sides") == 1
    run_of_texts(forget, retain, tmp_path / "run", folder_of)
    said = capfd.readouterr()
    assert "both sides" not in said.out + said.err


def test_forget_that_is_retain_scores_one_and_says_so(tmp_path, folder_of, capfd):
    corpus = documents(tmp_path / "f.jsonl", some(0, 100) + some(0, 100, "test"))
    run = run_of_texts(corpus, corpus, tmp_path / "run", folder_of)
    said = capfd.readouterr()
    assert (said.out + said.err).count("forget and retain are the same text") == 1
    scores = run.scores(eps=0.0)["mlp"].values
    assert torch.equal(scores, torch.ones_like(scores))


def test_text_that_is_on_one_side_only_is_not_mentioned(tmp_path, folder_of, capfd):
    sides = [documents(tmp_path / f"{k}.jsonl", some(k, k + 100) + some(k, k + 100, "test")) for k in (0, 150)]
    run = run_of_texts(*sides, tmp_path / "run", folder_of)
    assert run.record["shared_documents"] == {"train": 0, "test": 0}
    said = capfd.readouterr()
    assert "note:" not in said.out + said.err
