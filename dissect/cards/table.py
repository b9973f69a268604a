"""All units as one table, to sort and filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dissect.backend.units import PLACE, Unit, places
from dissect.base.checks import check_kind
from dissect.base.errors import DissectError
from dissect.runs.run import KEPT, Run
from dissect.scoring.scores import Scores, SiteScores, sites_of

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("site", *PLACE, "forget", "retain", "score", "rank", "step")


def neurons(scores: Scores | SiteScores, run: Run | None = None) -> DataFrame:
    """Every scored unit as a row, the highest scores first.

    Args:
        scores: The scores of one site or several.
        run: Where the step comes from that pruned a unit.

    Returns:
        Columns `site`, `layer`, `head` (of attention), `expert` (of a mixture), `unit` (its number in the head or
        expert or, for mlp, in the layer; missing for whole heads and experts), `forget` and `retain` (importance),
        `score`, `rank` (1 is the first to be pruned of its site; ties go to the lower index), `step` (that pruned it;
        missing if kept, or without a run).

    Raises:
        DissectError: The run pruned another model.
    """
    import pandas

    sites = sites_of(scores)
    if run is not None:
        check_kind("run", run, Run, "a Run, as dissect.Run.load(folder) gives it")
    table = pandas.concat([_site_table(site, run) for site in sites], ignore_index=True)
    return table.sort_values(["score", "rank"], ascending=[False, True], kind="stable", ignore_index=True)


def units_of(table: DataFrame) -> list[Unit]:
    """The units of a table's rows, in order: `neuron_cards(model, units_of(table.head(5)), ...)`."""
    import pandas

    check_kind("table", table, pandas.DataFrame, "a table, as dissect.neurons(scores) gives it")
    if missing := [name for name in ("site", "layer", "head", "unit") if name not in table]:
        raise DissectError(f"a table of units has the columns site, layer, head and unit; this one lacks {missing}")
    try:
        rows = table.reindex(columns=list(PLACE)).astype("Int64").to_numpy(dtype=object, na_value=None)
    except (TypeError, ValueError) as error:
        raise DissectError(f"{', '.join(PLACE)} of a table must be whole numbers: {error}") from error
    return [
        Unit(str(site), layer, tuple(part for part in index if part is not None))
        for site, (layer, *index) in zip(table["site"], rows.tolist(), strict=True)
    ]


def _site_table(scores: SiteScores, run: Run | None) -> DataFrame:
    import pandas

    values = scores.values.numpy()
    columns = {
        "site": scores.site,
        **places(values.shape, scores.site),
        "forget": scores.forget.numpy().flatten(),
        "retain": scores.retain.numpy().flatten(),
        "score": values.flatten(),
        "rank": _ranks(values.flatten()),
        "step": _steps(scores, run),
    }
    table = pandas.DataFrame(columns).loc[scores.there.flatten().numpy()]
    return table.astype(dict.fromkeys((*PLACE[1:], "step"), "Int64"))


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the highest; ties in order, as `SiteScores.top` takes them."""
    ranks = np.empty(values.size, np.int64)
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, values.size + 1)
    return ranks


def _steps(scores: SiteScores, run: Run | None) -> np.ndarray | None:
    if run is None or scores.site not in run.pruned_at:
        return None
    pruned_at = run.pruned_at[scores.site]
    if pruned_at.shape != scores.values.shape:
        raise DissectError(
            f"the run pruned a model with {scores.site!r} units {tuple(pruned_at.shape)}, "
            f"the scores are of {tuple(scores.values.shape)}; give the scores of that model: run.scores()"
        )
    steps = pruned_at.flatten().numpy().astype(object)
    steps[steps == KEPT] = None
    return steps
