"""Cards of the units that a run pruned first, from the model and the text that its record names."""

from __future__ import annotations

from typing import Any

from dissect.ablation.svd import rotate_to_svd
from dissect.ablation.weight_edit import WeightEdit
from dissect.backend.units import Unit
from dissect.base.checks import check_kind, check_model, check_whole
from dissect.base.errors import DissectError
from dissect.cards.effect import check_tokens, first_windows
from dissect.cards.heads import head_cards
from dissect.cards.neurons import neuron_cards
from dissect.cards.stack import Cards
from dissect.cards.table import neurons, units_of
from dissect.data.windows import Windows, load_windows
from dissect.models.fingerprint import model_fingerprint
from dissect.runs.inputs import WINDOWS, load_again
from dissect.runs.run import SIDES, Run

BY_HAND = "make cards in Python with neuron_cards(model, units, forget, retain) and give them to write_report"


def top_cards(
    run: Run, n: int, *, model: Any = None, tokens: int = 4_000, ablation_tokens: int = 1_000, progress: bool = True
) -> Cards:
    """Cards of the `n` units with the highest scores among those that `run` pruned first.

    They show the unpruned model on the run's own train documents. With several sites, these take turns.

    Args:
        run: A run that kept statistics, as every run does that scores.
        n: How many cards; fewer where the run pruned fewer units.
        model: The run's model; loaded again by its name if not given.
        tokens: Positions of each data set that are looked at, rounded up to whole windows.
        ablation_tokens: Predictions of each data set on which each unit alone is ablated; 0 leaves that out.
        progress: Show progress bars.

    Raises:
        DissectError: The run has no statistics or no step, its data or its model cannot be had again by name, or
            they are not what they were (by their fingerprints).
    """
    if model is not None:
        check_model(model)
    units = top_units(run, n)
    check_whole("tokens", tokens, 1)
    check_tokens(ablation_tokens)
    check_named(run)
    model = same_model(run, model)
    sides = [first_windows(model, same_windows(run, side, model), tokens) for side in SIDES]
    rotation = rotate_to_svd(model) if run.config.svd else WeightEdit()
    try:
        return _cards(model, units, *sides, ablation_tokens=ablation_tokens, progress=progress)
    finally:
        rotation.restore()


def top_units(run: Run, n: int) -> list[Unit]:
    """The first units a run pruned, by step, then by rank in their site, at most `n`."""
    check_whole("the number of cards", n, 1)
    check_kind("run", run, Run, "a Run, as dissect.Run.load(folder) gives it")
    if not run.has_stats:
        raise DissectError(f"{run.path} kept no statistics to choose units by; {BY_HAND}")
    table = neurons(run.scores(), run).dropna(subset="step")
    if table.empty:
        raise DissectError(f"{run.path} has pruned nothing yet; give its command again to resume it")
    return units_of(table.sort_values(["step", "rank"], kind="stable").head(n))


def check_named(run: Run) -> None:
    """Raise `DissectError` unless names load the run's data."""
    for side in SIDES:
        if getattr(run.config, side).startswith(WINDOWS):
            raise DissectError(f"the {side} data of {run.path} were given as Windows, which no name loads; {BY_HAND}")


def run_model(run: Run) -> Any:
    """The model of a run whose cards or samples are to be made, loaded by its recorded name.

    Raises:
        DissectError: As `top_cards`.
    """
    check_named(run)
    return same_model(run, None)


def same_model(run: Run, model: Any) -> Any:
    """The run's model, by its recorded dtype and fingerprint."""
    recorded = run.record["model"]
    model = load_again(run, "in Python, give it to top_cards(run, n, model=model)") if model is None else model
    found = model_fingerprint(model)
    if found != recorded["fingerprint"]:
        raise DissectError(
            f"{run.config.model!r} is not the model that {run.path} pruned: its fingerprint is {found[:12]}, "
            f"the run's {recorded['fingerprint'][:12]}; give that one to top_cards(run, n, model=model)"
        )
    return model


def same_windows(run: Run, side: str, model: Any, split: str = "train") -> Windows:
    """The windows of a side that statistics (train) or evaluations (test) were of, by their recorded fingerprint."""
    config, recorded = run.config, run.record["data"][side][split]
    name = getattr(config, side)
    tokens = config.tokens if split == "train" else config.eval_tokens or config.tokens
    windows = load_windows(name, model, tokens=tokens, context=config.context, split=split, seed=config.seed)
    found = windows.fingerprint if "tokens_fingerprint" in recorded else windows.tokens_fingerprint
    if found != recorded["fingerprint"]:
        raise DissectError(
            f"{name!r} is not the text that {run.path} read: its fingerprint is {found[:12]}, "
            f"the run's {recorded['fingerprint'][:12]}; {BY_HAND}"
        )
    return windows


def _cards(model: Any, units: list[Unit], forget: Windows, retain: Windows, **options: Any) -> Cards:
    """Cards of neurons and heads, in the order of `units`."""
    heads = [unit for unit in units if unit.site == "head"]
    singles = [unit for unit in units if unit.site != "head"]
    cards = [
        *(neuron_cards(model, singles, forget, retain, **options) if singles else ()),
        *(head_cards(model, heads, forget, retain, **options) if heads else ()),
    ]
    return Cards(tuple(sorted(cards, key=lambda card: units.index(card.unit))))
