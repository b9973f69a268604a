"""Pairs: the same rows on both sides of everything, and intervals that draw them together."""

from __future__ import annotations

import json

import pytest
import torch

import dissect
from dissect import DissectError, load_pairs
from dissect.data.corpora import read_pairs
from dissect.data.splits import SPLITS
from dissect.evaluation.intervals import intervals
from tests.support.templates import chat_tokenizer
from tests.support.tokenizers import BOS, stand_in, word_tokenizer

WIDTH = 120


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def rows():
    return [
        {"question": f"Is {n} even?", "right": "yes" if n % 2 == 0 else "no", "wrong": f"perhaps {'so ' * (n % 3)}"}
        for n in range(60)
    ]


@pytest.fixture
def model():
    return stand_in(chat_tokenizer("zephyr"), n_ctx=WIDTH, d_vocab=300)


def texts_of(windows, tokenizer):
    """The text of each document, by its number."""
    found = {}
    for ids, documents, mask in zip(windows.tokens, windows.documents, windows.attention_mask, strict=True):
        for document in documents[mask].unique().tolist():
            found[document] = tokenizer.decode(ids[mask & (documents == document)])
    return found


@pytest.mark.parametrize("words", ["", ",answer", ",answer,packed"])
@pytest.mark.parametrize("split", SPLITS)
def test_the_same_question_has_the_same_number(tmp_path, rows, model, words, split):
    path = write(tmp_path / "a.jsonl", rows)
    names = [f"chat{words}:{path}:question+{column}" for column in ("right", "wrong")]
    right, wrong = load_pairs(*names, model, tokens=60, context=WIDTH, split=split, seed=3)
    assert min(right.n_kept, wrong.n_kept) >= 60
    texts = [texts_of(windows, model.tokenizer) for windows in (right, wrong)]
    assert list(texts[0]) == list(texts[1])
    assert len(texts[0]) == right.provenance["documents"] == wrong.provenance["documents"]
    by_question = {row["question"]: row for row in rows}
    for first, second in zip(texts[0].values(), texts[1].values(), strict=True):
        asked = first.split("\n")[1].removesuffix("</s>")
        assert first == f"<|user|>\n{asked}</s>\n<|assistant|>\n{by_question[asked]['right']}</s>\n"
        assert second == f"<|user|>\n{asked}</s>\n<|assistant|>\n{by_question[asked]['wrong']}</s>\n"
    assert right.provenance["paired_with"] == names[1]


def test_train_and_test_share_no_pair_and_together_have_all(tmp_path, rows):
    path = write(tmp_path / "a.jsonl", rows)
    sides = [set(read_pairs(f"{path}:question", f"{path}:wrong", split=split, seed=1)) for split in SPLITS]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert sorted(json.loads(pair) for pair in sides[0] | sides[1]) == sorted([r["question"], r["wrong"]] for r in rows)
    orders = [list(read_pairs(f"{path}:question", f"{path}:wrong", split="train", seed=seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_a_row_that_one_side_cannot_read_is_left_out_of_both(tmp_path, rows, model):
    rows[4]["wrong"] = "long " * 40
    rows[5]["right"] = None
    rows[6]["question"] = None
    path = write(tmp_path / "a.jsonl", rows)
    questions, counts, empty = [], {"too_long": 0, "no_answer": 0}, 0
    for split in SPLITS:
        names = [f"chat,answer:{path}:question+{column}" for column in ("right", "wrong")]
        with pytest.raises(DissectError, match="ask for at most") as caught:
            load_pairs(*names, model, tokens=9_999, context=WIDTH, split=split)
        available = int(str(caught.value).split(" has ")[1].split()[0])
        pair = load_pairs(*names, model, tokens=available, context=WIDTH, split=split)
        questions += [text.split("\n")[1] for text in texts_of(pair[0], model.tokenizer).values()]
        for windows in pair:
            counts = {reason: count + windows.provenance.get(reason, 0) for reason, count in counts.items()}
        empty = pair[0].provenance["empty"]
    assert len(questions) >= len(rows) - 3 - 2  # all but three, and of each split perhaps its last, which is not needed
    assert not {f"Is {n} even?</s>" for n in (4, 5)} & set(questions)
    assert counts["too_long"] <= 1
    assert counts["no_answer"] <= 1
    assert empty == 1


def test_texts_can_be_pairs_too(tmp_path):
    model = stand_in(word_tokenizer(bos_token="<s>"))
    path = write(tmp_path / "a.jsonl", [{"one": f"w{n}", "other": f"w{n + 100} w{n}"} for n in range(60)])
    first, second = load_pairs(f"{path}:one", f"{path}:other", model, tokens=5, context=8)
    assert (first.tokens[:, 0] == BOS).all()
    assert torch.equal(first.tokens[:, 1] + 100, second.tokens[:, 1])
    assert torch.equal(first.tokens[:, 1], second.tokens[:, 2])
    assert not first.keep[:, 0].any()
    assert (first.n_kept, second.n_kept) == (5, 10)


def test_corpora_of_other_lengths_are_no_pairs(tmp_path, rows, model):
    long, short = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows[:50])
    for names in ((long, short), (short, long)):
        pair = [f"chat:{name}:question" for name in names]
        with pytest.raises(DissectError, match=r"as many rows .*: 'chat:.*b\.jsonl.*' has 50, 'chat:.*a\.jsonl"):
            load_pairs(*pair, model, tokens=5, context=WIDTH)


def sums(right, of):
    right, of = torch.tensor(right, dtype=torch.float64), torch.tensor(of, dtype=torch.float64)
    return dissect.DocumentSums(("top1", "top10", "loss"), torch.stack([right] * 3, 1), torch.stack([of] * 3, 1))


def test_pairs_are_drawn_together():
    """Where both of each pair lose the same, the difference is none, in every resample; drawn apart it is spread."""
    generator = torch.Generator().manual_seed(0)
    of = torch.randint(5, 50, (40,), generator=generator)
    before = (of * torch.rand(40, generator=generator)).round()
    after = (before * torch.rand(40, generator=generator)).round()
    now, base = (dict.fromkeys(("forget", "retain"), sums(each.tolist(), of.tolist())) for each in (after, before))
    together, apart = (intervals(now, base, paired=paired)["difference"] for paired in (True, False))
    assert together == [0.0, 0.0]
    assert apart[0] < -0.02 < 0.02 < apart[1]
    alone = intervals({"forget": now["forget"]}, {"forget": base["forget"]}, paired=True)
    assert alone["forget"]["drop"] == pytest.approx(intervals(now, base)["forget"]["drop"], abs=0.03)
