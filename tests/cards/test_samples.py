"""Samples of a run: the model's own continuations of test documents, and the report that shows them as text."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import dissect
from dissect import DissectError, Run, Windows
from dissect.ablation.svd import rotate_to_svd
from dissect.cards.samples import Sample, Samples, beginnings, run_samples
from dissect.cli.main import main
from dissect.data.packing import beginning
from dissect.evaluation.continuation import Reading, read_on
from dissect.runs import inputs
from tests.support import tiny
from tests.support.hostile import HOSTILE
from tests.support.models import our_hooks
from tests.support.named_runs import changed, run_of
from tests.support.runs import small_run


def model_of(given):
    return dissect.load_model(given.config.model, dtype="float32")


def test_samples_are_what_both_models_say(run):
    found = run_samples(run, 1, prompt_tokens=6, new_tokens=5, progress=False)
    assert [sample.side for sample in found.samples] == ["forget", "retain"]
    step = run.summary().step or len(run.history) - 1
    assert (found.step, found.units, found.why_none) == (step, len(run.mask(step)), "")
    model = model_of(run)
    for sample, (side, ids) in zip(found.samples, prompts_of(run, model), strict=True):
        assert sample.side == side
        assert sample.unpruned == read_on(model, ids, 5)
        with dissect.ablated(model, run.mask(step)):
            assert sample.pruned == read_on(model, ids, 5)
        assert sample.unpruned.prompt == model.tokenizer.decode(ids[1:])
    assert any(sample.unpruned.losses != sample.pruned.losses for sample in found.samples)


def prompts_of(given, model):
    """Read by hand: the first test document of six tokens, of each side."""
    for side in ("forget", "retain"):
        windows = dissect.load_windows(
            getattr(given.config, side), model, tokens=given.config.tokens, context=given.config.context, split="test"
        )
        bos, rows = beginning(model.tokenizer), windows.tokens.tolist()
        documents = windows.documents.tolist()
        starts = [
            (row, place)
            for row, ids in enumerate(rows)
            for place, token in enumerate(ids)
            if token == bos and (place or not row or documents[row - 1][-1] != documents[row][0])
        ]
        parts = [rows[row][place : place + 7] for row, place in starts]
        yield from [(side, ids) for ids in parts if len(ids) == 7 and ids.count(bos) == 1][:1]


def test_the_same_samples_each_time_and_the_model_as_it_was(run):
    model = model_of(run)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    first, second = (run_samples(run, 1, model=model, new_tokens=3, progress=False) for _ in range(2))
    assert first == second
    assert our_hooks(model) == 0
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("changes", [{"value": "mean"}, {"site": "value", "svd": True}, {"selector": "random"}])
def test_samples_of_other_kinds_of_run(folder, changes):
    kind = run_of(folder, "-".join(changes), **changes)
    found = run_samples(kind, 1, step=2, prompt_tokens=5, new_tokens=4, progress=False)
    model = model_of(kind)
    if kind.config.svd:
        rotate_to_svd(model)
    stats = kind.stats("retain") if kind.config.value == "mean" else None
    ids = beginnings(same_test_windows(kind, model), 1, 5)[0]
    with dissect.ablated(model, kind.mask(2), value=kind.config.value, stats=stats):
        assert found.samples[0].pruned.tokens == read_on(model, ids, 4).tokens
        assert found.samples[0].pruned.losses == pytest.approx(read_on(model, ids, 4).losses, abs=1e-4)
    assert (found.step, found.units) == (2, len(kind.mask(2)))


def same_test_windows(given, model):
    config = given.config
    return dissect.load_windows(config.forget, model, tokens=config.tokens, context=config.context, split="test")


def test_beginnings_are_of_documents_that_begin():
    tokens = torch.tensor([[9, 1, 2, 9, 3, 4, 5], [9, 6, 7, 9, 8, 9, 2]])  # 3 4 5 6 7 go over the windows' edge
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 2, 2, 3, 3]])
    windows = Windows.from_tokens(tokens, documents=documents)
    assert beginnings(windows, 9, 2) == [[9, 1, 2], [9, 3, 4], [9, 8], [9, 2]]
    assert beginnings(windows, 1, 3) == [[9, 3, 4, 5]]
    assert beginnings(windows, 9, 3) == [[9, 3, 4, 5], [9, 1, 2], [9, 8], [9, 2]]


def test_a_masked_model_has_none_and_the_page_says_why(tmp_path, folder, capsys):
    tiny.save_tiny("roberta", tmp_path / "masked")
    masked = run_of(folder, "masked", model=str(tmp_path / "masked"))
    found = run_samples(masked, 2, progress=False)
    assert found.samples == ()
    assert "masked model" in found.why_none
    assert main(["report", str(masked.path), "--samples", "2", "-o", str(tmp_path / "page.html")]) == 0
    assert "No continuations: a masked model fills gaps" in (tmp_path / "page.html").read_text()


def test_the_report_command_shows_samples(run, tmp_path):
    page = tmp_path / "page.html"
    assert main(["report", str(run.path), "--samples", "1", "-o", str(page)]) == 0
    text = page.read_text()
    assert 'id="samples"' in text
    assert text.count('<td class="text">') == 2
    assert f"without the {len(run.mask(run.summary().step or 2))} units" in text
    assert main(["report", str(run.path), "-o", str(page)]) == 0
    assert 'id="samples"' not in page.read_text()


@pytest.mark.parametrize(("flags", "loads"), [(["--cards", "1", "--samples", "1"], 1), ([], 0)])
def test_the_report_command_loads_the_model_once(run, tmp_path, monkeypatch, flags, loads):
    loaded = []
    load = inputs.load_model
    monkeypatch.setattr(inputs, "load_model", lambda *args, **options: loaded.append(args) or load(*args, **options))
    assert main(["report", str(run.path), *flags, "-o", str(tmp_path / "page.html")]) == 0
    assert len(loaded) == loads


def test_what_others_wrote_is_text_in_samples(run, tmp_path):
    reading = Reading(HOSTILE, (1.0, 2.0, 3.0, 4.0), 2)
    samples = Samples(HOSTILE[0], 1, 5, (Sample("forget", reading, dataclasses.replace(reading, n_prompt=1)),))
    page = dissect.write_report([run], tmp_path / "page.html", samples=samples).read_text()
    for text in HOSTILE[:3]:
        assert text not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page


@pytest.mark.parametrize("cell", ["n", "prompt_tokens", "new_tokens"])
def test_numbers_that_are_none(run, cell):
    for wrong in (0, -1, True):
        with pytest.raises(DissectError, match="must be a whole number, 1 or more"):
            run_samples(run, **{"n": 1, cell: wrong})


def test_runs_without_samples(run, tmp_path, capsys):
    with pytest.raises(DissectError, match="were given as Windows"):
        run_samples(small_run(tmp_path / "windows"), 1)
    begun = small_run(tmp_path / "begun")
    begun = Run(begun.path, begun.config, begun.record)
    with pytest.raises(DissectError, match="has pruned nothing yet"):
        run_samples(begun, 1)
    other = changed(
        run, tmp_path / "other", lambda record: record["data"]["retain"]["test"].update(fingerprint="0" * 64)
    )
    with pytest.raises(DissectError, match="is not the text that"):
        run_samples(other, 1, progress=False)
    assert main(["report", str(run.path), "--samples", "-1"]) == 2
    assert "samples must be a whole number, 0 or more, got -1" in capsys.readouterr().err


def test_the_run_that_is_shown(folder, run, tmp_path):
    """Layer by layer the first one; unit by unit the first that has scores, and the page says which that is."""
    random = run_of(folder, "random", selector="random")
    page = dissect.write_report([random, run], tmp_path / "page.html").read_text()
    assert f"Scores are of the base model, from the run {run.label}." in page
    first = dissect.neurons(run.scores(), run)["unit"].iloc[0]
    assert f'data-value="{first}"' in page
    panels = dissect.views.dashboard(random, run).to_dict()["data"]
    assert panels[-1]["type"] == "bar"  # no scores: pruned units of each layer
    alone = dissect.write_report([run], tmp_path / "alone.html").read_text()
    assert "Scores are of the base model. Click" in alone
