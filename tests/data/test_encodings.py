"""Local text in any encoding: read as it is meant, or replaced, counted, recorded and said, or refused by name."""

from __future__ import annotations

import codecs
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import dissect
from dissect import DissectError, load_windows
from dissect.data import decoding
from dissect.data.corpora import read_documents
from dissect.data.decoding import MARK, MARKED, Repaired
from dissect.data.readings import written_out
from dissect.data.splits import SPLITS
from tests.support.named_runs import run_of_texts
from tests.support.tokenizers import byte_tokenizer, stand_in, word_tokenizer

TEXTS = [f"Überall größere Mengen, Nummer {number}. 漢字 😀" for number in range(60)]
WIDE = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-16-le", "utf-32-be")
BIG_ENDIAN = {"utf-16-be": codecs.BOM_UTF16_BE, "utf-16-le": codecs.BOM_UTF16_LE, "utf-32-be": codecs.BOM_UTF32_BE}
PACKED = {"": bytes, ".gz": gzip.compress, ".ZST": zstandard.ZstdCompressor().compress}


def encoded(text, encoding):
    return BIG_ENDIAN.get(encoding, b"") + text.encode(encoding)


def everything(corpus):
    return [document for split in SPLITS for document in read_documents(str(corpus), split=split)]


def bytes_model():
    return stand_in(byte_tokenizer(), d_vocab=257)


def lines(texts):
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\r\n" for text in texts)


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("form", ["folder", "paragraphs", "jsonl", "array"])
def test_a_byte_order_mark_decides(tmp_path, form, encoding, packing):
    if form == "folder":
        for number, text in enumerate(TEXTS):
            (tmp_path / f"{number}.txt{packing}").write_bytes(PACKED[packing](encoded(text, encoding)))
    else:
        name, text = {
            "paragraphs": ("a.txt", "\r\n\r\n".join(TEXTS)),
            "jsonl": ("a.jsonl", lines(TEXTS)),
            "array": ("a.json", json.dumps([{"text": text} for text in TEXTS], indent=1)),
        }[form]
        (tmp_path / f"{name}{packing}").write_bytes(PACKED[packing](encoded(text, encoding)))
    found = everything(tmp_path)
    assert sorted(found) == sorted(TEXTS)
    assert not any(isinstance(text, Repaired) for text in found)


@given(st.binary(max_size=40))
def test_marks_stand_where_replacement_characters_would(raw):
    marked = raw.decode("utf-8", MARKED)
    assert marked.replace(MARK, "\ufffd") == raw.decode("utf-8", "replace")
    assert marked.count(MARK) == raw.decode("utf-8", "replace").count("\ufffd") - raw.count("\ufffd".encode())


PLAIN = [f"the river {number} rose above the town and the fields beyond it " * 4 for number in range(300)]
BROKEN = b"caf\xe9 \0 "  # two characters that are no text


def damaged(tmp_path, form):
    """A corpus of 300 documents, 2 characters in each of the first 3 of which are no text."""
    raw = [(BROKEN if number < 3 else b"") + text.encode() for number, text in enumerate(PLAIN)]
    path = tmp_path / f"a.{form}"
    if form == "folder":
        path.mkdir()
        for number, text in enumerate(raw):
            (path / f"{number}.txt").write_bytes(text)
    elif form == "txt":
        path.write_bytes(b"\n\n".join(raw))
    elif form == "jsonl":
        path.write_bytes(b"".join(b'{"text": "' + text + b'"}\n' for text in raw))
    else:
        texts = pa.array([text.replace(b"\0", b"\xff") for text in raw], pa.binary())
        pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), len(texts), texts.buffers())}), path)
    return path


@pytest.mark.parametrize("form", ["folder", "txt", "jsonl", "parquet"])
def test_a_few_characters_are_replaced_counted_and_recorded(tmp_path, form):
    path = damaged(tmp_path, form)
    repaired = [document for document in everything(path) if isinstance(document, Repaired)]
    assert len(repaired) == 3
    assert all(document.replaced == document.count("\ufffd") == 2 for document in repaired)
    assert all(str(path) in document.file for document in repaired)
    found = {}
    for split in SPLITS:
        documents = list(read_documents(str(path), split=split))
        tokens = sum(len(text.encode()) + 1 for text in documents) - len(documents) - 1_000
        windows = load_windows(str(path), bytes_model(), tokens=tokens, context=64, split=split)
        found[split] = windows.provenance.get("replaced", 0)
    assert 0 < sum(found.values()) <= 6
    assert sum(found.values()) in (4, 6)  # the last documents may not be needed


def test_a_replacement_character_that_was_there_is_text(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"\ufffd {text}" for text in PLAIN), encoding="utf-8")
    assert "replaced" not in load_windows(tmp_path / "a.txt", bytes_model(), tokens=900, context=64).provenance


def test_half_a_surrogate_pair_in_json_is_replaced(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one \\ud83d half"}\n{"text": "\\ud83d\\ude00 whole"}\n')
    assert sorted(everything(tmp_path / "a.jsonl")) == sorted(["one \ufffd half", "😀 whole"])


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("form", ["folder", "paragraphs", "jsonl"])
def test_text_of_another_encoding_is_refused_by_name(tmp_path, form, packing):
    texts = [text.split(" 漢")[0] for text in TEXTS]
    path = {"folder": tmp_path, "paragraphs": tmp_path / f"a.txt{packing}", "jsonl": tmp_path / f"a.jsonl{packing}"}[
        form
    ]
    if form == "folder":
        for number, text in enumerate(texts):
            (path / f"{number}.txt{packing}").write_bytes(PACKED[packing](text.encode("cp1252")))
    else:
        text = "\n\n".join(texts) if form == "paragraphs" else lines(texts)
        path.write_bytes(PACKED[packing](text.encode("cp1252")))
    name = r"\d+\.txt" if form == "folder" else path.name
    with pytest.raises(DissectError, match=rf"{name}.*: [\d,]+ of [\d,]+ characters are not UTF-8.*iconv -f cp1252"):
        load_windows(str(path), bytes_model(), tokens=300, context=32)


@pytest.mark.parametrize(
    "raw", [b"\0" * 3_000_000, bytes(range(256)) * 8_000, "plain words without a mark ".encode("utf-16-le") * 2_000]
)
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_what_is_not_text_is_refused_before_it_is_read_to_its_end(tmp_path, monkeypatch, name, raw):
    monkeypatch.setattr(decoding, "PIECE", 1 << 14)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    with pytest.raises(DissectError, match=r"a\.txt.*: 1\d,\d\d\d of [1-4]\d,\d\d\d characters are not UTF-8"):
        everything(tmp_path / name)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_cut_off_is_no_shorter_text(tmp_path, suffix):
    raw = PACKED[".gz" if suffix == ".gz" else ".ZST"]("\n\n".join(PLAIN).encode())
    (tmp_path / f"a.txt{suffix}").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DissectError, match=rf"cannot read .*a\.txt\{suffix}"):
        everything(tmp_path / f"a.txt{suffix}")


# Special tokens that a text has written out

CHAT = [f"<|user|>say {number} <|end|>\n<|bot|>{number}<|end|>" for number in range(200)]


def chat_tokenizer():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>", "<|end|>"]})
    return tokenizer


@pytest.mark.parametrize("form", ["jsonl", "txt"])
def test_documents_with_special_tokens_written_out_are_counted(tmp_path, form):
    path = tmp_path / f"a.{form}"
    texts = [text for pair in zip(CHAT, PLAIN, strict=False) for text in pair]
    path.write_text(lines(texts) if form == "jsonl" else "\n\n".join(texts), encoding="utf-8")
    model = stand_in(chat_tokenizer(), d_vocab=300)
    windows = load_windows(str(path), model, tokens=4_000, context=64)
    text = "".join(model.tokenizer.convert_ids_to_tokens(windows.tokens[windows.keep].tolist()))
    assert 3 < windows.provenance["special_tokens"] < windows.provenance["documents"] - 3
    begun = windows.provenance["special_tokens"] - text.count("<|user|>")
    assert begun in (0, 1)  # of the last document there may be less than its first token
    assert set(windows.tokens.unique().tolist()) <= set(range(257))  # read as text, none of them as a token


def test_text_without_them_has_no_such_entry(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(PLAIN))
    windows = load_windows(tmp_path / "a.txt", stand_in(chat_tokenizer(), d_vocab=300), tokens=900, context=64)
    assert not {"special_tokens", "replaced"} & set(windows.provenance)


def test_only_those_that_are_cut_into_pieces_count():
    found = written_out(chat_tokenizer())
    assert found is not None
    assert found.findall("<|user|> <|en|> <|end|> <s>") == ["<|user|>", "<|end|>", "<s>"]
    assert written_out(word_tokenizer(bos_token="w3")) is None  # a word that is a token either way


def test_prune_and_stability_say_it_once(tmp_path, folder_of, capfd):
    paths = {}
    for side, texts in (("forget", PLAIN), ("retain", [f"prose {text}" for text in PLAIN])):
        raw = [text.encode() for text in texts]
        if side == "forget":
            raw = [
                text.replace(b"town", b"t\xf6wn", 1) if number % 10 == 0 else text for number, text in enumerate(raw)
            ]
        else:
            raw = [b"<s> " + text for text in raw]  # the tiny tokenizer's own
        paths[side] = tmp_path / f"{side}.txt"
        paths[side].write_bytes(b"\n\n".join(raw))
    run = run_of_texts(str(paths["forget"]), str(paths["retain"]), tmp_path / "run", folder_of)
    data, said = run.record["data"], capfd.readouterr()
    for kind, words in (("replaced", "characters are not UTF-8"), ("special_tokens", "documents have special tokens")):
        counted = [part[kind] for side in data.values() for part in side.values() if kind in part]
        assert (said.out + said.err).count(words) == bool(counted)
    model = stand_in(byte_tokenizer(), d_vocab=257)
    assert "replaced" in load_windows(paths["forget"], model, tokens=10_000, context=64).provenance
    options = {"tokens": 400, "context": 16, "sites": "mlp", "importances": "abs", "splits": 1, "progress": False}
    model = dissect.load_model(folder_of("llama"), dtype="float32")
    dissect.stability(model, **{side: str(path) for side, path in paths.items()}, **options)
    said = capfd.readouterr()
    assert "note: " in said.out
