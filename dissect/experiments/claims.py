"""What the paper claims about selective pruning, and which runs test each claim.

The table puts the runs that a claim compares next to each other; it does not judge the claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dissect.runs.config import PruneConfig
from dissect.runs.run import Run, as_runs
from dissect.runs.summary import percent

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and what to compare.

    Attributes:
        statement: What the paper says.
        settings: By a short name, the fields of `PruneConfig` that differ from `BASE`. `pair` is the index of the
            pair of data sets, `reversed` swaps forget and retain, and `tokens` divides the number of predictions.
    """

    statement: str
    settings: dict[str, dict[str, Any]]


BASE = {"site": "mlp", "importance": "abs", "selector": "score", "iterative": True, "svd": False}

RANDOM = {"selector": "random"}
PRE_OUT = {"site": "pre_out"}
ONE_SHOT = {"iterative": False}
SVD = {"svd": True}

CLAIMS = (
    Claim(
        "Selective pruning takes far more from the forget set than random pruning does",
        {"mlp": {}, "mlp random": RANDOM, "pre_out": PRE_OUT, "pre_out random": PRE_OUT | RANDOM},
    ),
    Claim(
        "Feed-forward neurons are more selective than attention neurons, and those more than heads",
        {"mlp": {}, "value": {"site": "value"}, "pre_out": PRE_OUT, "head": {"site": "head"}},
    ),
    Claim("Value neurons are much like pre-out neurons", {"value": {"site": "value"}, "pre_out": PRE_OUT}),
    Claim(
        "The choice of importance function matters",
        {f"mlp {name}": {"importance": name} for name in ("freq", "abs", "rms", "std", "sqrt")}
        | {f"pre_out {name}": PRE_OUT | {"importance": name} for name in ("abs", "rms", "std", "sqrt")},
    ),
    Claim(
        "Iterative pruning is better than pruning by the base model's scores",
        {"mlp": {}, "mlp one-shot": ONE_SHOT, "pre_out": PRE_OUT, "pre_out one-shot": PRE_OUT | ONE_SHOT},
    ),
    Claim(
        "Rotating attention to its singular basis changes little",
        {
            "value": {"site": "value"},
            "value svd": {"site": "value"} | SVD,
            "pre_out": PRE_OUT,
            "pre_out svd": PRE_OUT | SVD,
        },
    ),
    Claim("Prose can be taken away as well, and code kept", {"mlp": {"reversed": True}}),
    Claim(
        "Two kinds of code can be told apart",
        {
            "mlp": {"pair": 1},
            "mlp random": {"pair": 1} | RANDOM,
            "mlp, reversed": {"pair": 1, "reversed": True},
            "mlp random, reversed": {"pair": 1, "reversed": True} | RANDOM,
        },
    ),
    Claim(
        "More predictions for the statistics help",
        {"all": {}, "a fifth": {"tokens": 5}, "a twentieth": {"tokens": 20}},
    ),
)


COLUMNS = (
    "model",
    "claim",
    "setting",
    "forget",
    "retain",
    "difference",
    "difference low",
    "difference high",
    "at step",
    "retain drop there",
    "forget drop at 20%",
)


def claims_table(runs: Iterable[Run]) -> DataFrame:
    """A row for every setting of every claim for which there is a run, in percent (points for the difference).

    Columns: model, claim, setting, forget, retain, difference (the number of the paper's Table 2) and the ends of its
    95% interval (empty where there is none), at step, retain drop there, forget drop where the retain drop is 20%.
    """
    import pandas

    runs, rows = as_runs(runs), []
    for model in dict.fromkeys(run.config.model for run in runs):
        of_model = [run for run in runs if run.config.model == model]
        pairs = _pairs(of_model)
        for claim in CLAIMS:
            for name, setting in claim.settings.items():
                found = [run for run in of_model if _fits(run.config, setting, pairs, of_model)]
                rows += [_row(claim, name, run) for run in found]
    return pandas.DataFrame(rows, columns=COLUMNS)


def _pairs(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The pairs (forget, retain) of the runs, in order, without those that only swap an earlier one."""
    pairs: list[tuple[str, str]] = []
    for run in runs:
        pair = (run.config.forget, run.config.retain)
        if pair not in pairs and pair[::-1] not in pairs:
            pairs.append(pair)
    return pairs


def _fits(config: PruneConfig, setting: dict[str, Any], pairs: list[tuple[str, str]], runs: Sequence[Run]) -> bool:
    place, part = setting.get("pair", 0), setting.get("tokens", 1)
    if place >= len(pairs):
        return False
    pair = pairs[place][::-1] if setting.get("reversed") else pairs[place]
    total = max(run.config.tokens for run in runs)
    wanted = BASE | {name: value for name, value in setting.items() if name not in ("pair", "reversed", "tokens")}
    if wanted["selector"] == "random":
        wanted.pop("importance")
    return (
        (config.forget, config.retain) == pair
        and config.tokens == max(1, total // part)
        and all(getattr(config, name) == value for name, value in wanted.items())
    )


def _row(claim: Claim, name: str, run: Run) -> dict[str, Any]:
    summary = run.summary()
    low, high = summary.interval or (None, None)
    return {
        "model": run.config.model,
        "claim": claim.statement,
        "setting": name,
        "forget": run.config.forget,
        "retain": run.config.retain,
        "difference": percent(summary.difference),
        "difference low": percent(low),
        "difference high": percent(high),
        "at step": summary.step,
        "retain drop there": percent(summary.retain_drop),
        "forget drop at 20%": percent(summary.forget_drop_at[0.20]),
    }
