"""Cards of a run's first units: of the right units, of the same model and text, and errors that say what to do."""

from __future__ import annotations

import pytest
import torch

import dissect
from dissect import DissectError, Unit
from dissect.cards.of_run import top_cards, top_units
from dissect.cli.main import main
from tests.support.named_runs import changed, run_of
from tests.support.runs import small_run


def importance_of(run, unit, side):
    return getattr(run.scores()[unit.site], side)[unit.place].item()


def assert_cards_are_of(run, cards):
    """Over all of the run's text a card's mean |activation| is the importance that the run scored by."""
    for card in cards:
        for side in ("forget", "retain"):
            assert getattr(card, side).n == run.config.tokens
            assert getattr(card, side).mean_abs == pytest.approx(importance_of(run, card.unit, side), rel=1e-4)


def test_the_first_units_of_a_run(run):
    cards = top_cards(run, 3, progress=False)
    values = run.scores()["mlp"].values
    highest = values.flatten().argsort(descending=True)[:3].tolist()
    assert [card.unit for card in cards] == [Unit("mlp", *divmod_unit(place, values.shape[1])) for place in highest]
    assert all(run.pruned_at["mlp"][card.unit.place] == 1 for card in cards)
    assert_cards_are_of(run, cards)
    assert cards[0].forget_effect.n > 0


def divmod_unit(place, width):
    return place // width, (place % width,)


def test_a_later_step_comes_later(run):
    """One-shot order is by score; here a unit of step 2 is behind all of step 1, whatever its base score."""
    units = top_units(run, 10_000)
    steps = [run.pruned_at["mlp"][unit.place].item() for unit in units]
    assert steps == sorted(steps)
    assert len(units) == len(run.mask())
    assert set(steps) == {1, 2}


def test_sites_take_turns_and_heads_have_cards_of_their_own(folder):
    mixed = run_of(folder, "mixed", site="mlp=0.1,head=0.25")
    cards = top_cards(mixed, 4, tokens=15, ablation_tokens=0, progress=False)
    assert [card.unit.site for card in cards].count("head") == 2
    assert [type(card).__name__ for card in cards] == [
        "HeadCard" if card.unit.site == "head" else "NeuronCard" for card in cards
    ]
    assert {card.forget.n for card in cards} == {15}
    assert cards[0].forget_effect is None
    page = dissect.write_report([mixed], folder / "mixed.html", cards).read_text()
    assert page.count('<section class="dissect-card"') == 4


def test_a_rotated_run_has_rotated_cards(folder):
    rotated = run_of(folder, "rotated", site="value", svd=True)
    model = dissect.load_model(folder / "model", dtype="float32")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    cards = top_cards(rotated, 2, model=model, progress=False)
    assert_cards_are_of(rotated, cards)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    plain = dissect.collect(model, dissect.load_windows(folder / "code", model, tokens=60, context=16))
    unit = cards[0].unit
    unrotated = dissect.score(forget=plain, retain=plain, sites=["value"])["value"].forget[unit.place].item()
    assert unrotated != pytest.approx(cards[0].forget.mean_abs, rel=0.01)


def test_the_report_command_makes_cards(folder, run, capsys):
    random = run_of(folder, "random", selector="random")
    page = folder / "page.html"
    assert main(["report", str(random.path), str(run.path), "--cards", "2", "-o", str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text()
    for unit in top_units(run, 2):
        assert f'id="mlp-{unit.layer}-{unit.index[0]}"' in text
        assert f'href="#mlp-{unit.layer}-{unit.index[0]}"' in text
    assert main(["report", str(run.path), "-o", str(page)]) == 0
    assert "<section" not in page.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["model"].update(fingerprint="0" * 64), "is not the model that .* pruned"),
        (lambda record: record["data"]["retain"]["train"].update(fingerprint="0" * 64), "is not the text that .* read"),
        (lambda record: record["config"].update(model="gone"), r"unknown model 'gone'.*in Python, give it as model="),
        (lambda record: record["config"].update(retain="windows:12"), "the retain data of .* were given as Windows"),
    ],
)
def test_what_is_not_the_same_is_refused(run, tmp_path, change, message):
    with pytest.raises(DissectError, match=message):
        top_cards(changed(run, tmp_path / "run", change), 1, progress=False)
    assert len(top_cards(changed(run, tmp_path / "same", lambda record: None), 1, progress=False)) == 1


def test_another_model_is_refused(run, folder, tmp_path):
    other = dissect.load_model(folder / "model", dtype="float32")
    other.blocks[0].mlp.W_in.data[0, 0] += 1
    with pytest.raises(DissectError, match="is not the model that"):
        top_cards(run, 1, model=other, progress=False)


def test_runs_without_cards(run, folder, tmp_path):
    with pytest.raises(DissectError, match="must be a whole number, 1 or more, got -1"):
        top_cards(run, -1)
    with pytest.raises(DissectError, match="kept no statistics"):
        top_cards(run_of(folder, "chance", selector="random"), 1)
    with pytest.raises(DissectError, match="were given as Windows"):
        top_cards(small_run(tmp_path / "windows"), 1)
