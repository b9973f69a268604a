"""The configuration of a run: the same dataclass is the command line's parser and the run folder's record."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from dissect.backend.sites import get_site
from dissect.base.checks import check_eps, check_fields, check_fraction, check_seed, check_whole
from dissect.base.errors import DissectError, shown, unknown
from dissect.base.options import HeadScore, Selector, Value

MOST_STEPS = 32_767  # the step that pruned a unit is an int16


@dataclass(frozen=True)
class PruneConfig:
    """Everything that determines a pruning run; the defaults are the paper's.

    Attributes:
        model: A known name (`dissect models`), a hub id or a local transformers folder.
        forget: The corpus whose units are to go: a known name, a local path or `hf:owner/name:column`.
        retain: The corpus whose units are to stay.
        site: Where units are pruned: mlp, value, pre_out or head; or several, mlp=0.02,pre_out=0.01.
        importance: abs, rms, std, freq or sqrt.
        eps: Added to the retain importance in the score; the site's own default if not given.
        fraction: How many units each step prunes, as a part of all units of the site.
        steps: Number of pruning steps.
        iterative: Collect statistics again on the pruned model at every step, or rank once.
        selector: Prune the highest scores, or as many units at random, or at random in the layers that --match prunes.
        match: For layer-random, the folder of the run whose number of units in each layer is matched.
        head: How the scores of a head's neurons become the head's own.
        value: What a pruned unit is set to: zero, or its mean on the retain corpus.
        svd: Rotate attention to the singular basis of each value head first, for value and pre_out units.
        force: Allow the importance freq on attention sites.
        kl: Measure the KL divergence from the unpruned model on the retain corpus.
        tokens: Predictions for statistics, from each corpus.
        eval_tokens: Others for evaluation; as many as for statistics if not given.
        first_position: Statistics also count the first position of each window, as the authors' own code does.
        context: Tokens in a window.
        seed: Of the order of documents and of the random selector.
        dtype: bfloat16, float16 or float32; bfloat16 where the machine has it if not given.
        device: cpu, cuda, ...; the best there is if not given.
        batch_size: Windows in a forward pass; about 2,048 tokens if not given.
    """

    model: str
    forget: str
    retain: str
    site: str = "mlp"
    importance: str = "abs"
    eps: float | None = None
    fraction: float = 0.02
    steps: int = 50
    iterative: bool = True
    selector: Selector = "score"
    match: str | None = None
    head: HeadScore = "mean"
    value: Value = "zero"
    svd: bool = False
    force: bool = False
    kl: bool = False
    tokens: int = 100_000
    eval_tokens: int | None = None
    first_position: bool = False
    context: int = 512
    seed: int = 0
    dtype: str | None = None
    device: str | None = None
    batch_size: int | None = None

    def check(self) -> None:
        """Raise `DissectError` for a value that no run can have; names are checked where their registries are."""
        check_fields(self)
        for name, kind in (("selector", Selector), ("value", Value), ("head", HeadScore)):
            if getattr(self, name) not in get_args(kind):
                raise unknown(name, getattr(self, name), get_args(kind))
        if (self.selector == "layer-random") != (self.match is not None):
            raise DissectError("selector layer-random and match go together: match is the run whose layers are matched")
        check_fraction(self.fraction)  # also where each site has its own beside it
        check_eps(self.eps)
        check_seed(self.seed)
        check_whole("steps", self.steps, 1, MOST_STEPS)
        check_whole("tokens", self.tokens, 1)
        check_whole("context", self.context, 2)
        for name in ("eval_tokens", "batch_size"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)

    def differences(self, other: PruneConfig) -> dict[str, tuple[Any, Any]]:
        """The fields in which two configurations differ, with both values."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


def parse_sites(site: str, fraction: float) -> dict[str, float]:
    """The fraction a step of each site: `"mlp"` takes `fraction`, `"mlp=0.02,pre_out=0.01"` has its own.

    Raises:
        DissectError: An unknown site, one that is named twice, or a fraction that is no number in (0, 1].
    """
    fractions: dict[str, float] = {}
    for part in site.split(","):
        name, _, given = part.strip().partition("=")
        if name in fractions:
            raise DissectError(f"site {shown(site)} names {name} twice; give each site once")
        try:
            fractions[get_site(name).name] = float(given) if given else fraction
        except ValueError as error:
            if isinstance(error, DissectError):
                raise
            raise DissectError(f"site {part!r} has no number after '='; write e.g. mlp=0.02,pre_out=0.01") from error
        check_fraction(fractions[name])
    return fractions


def run_name(config: PruneConfig) -> str:
    """The name of a run's folder, made of the main choices and of a digest of all of them."""
    words = [config.model, config.site, config.importance, config.selector, f"{config.forget}-vs-{config.retain}"]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(words)).strip("-")[:120]
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(config)).encode()).hexdigest()[:8]
    return f"{readable}_{digest}"


def default_out(config: PruneConfig, content: str) -> Path:
    """The folder of a run for which none is named: below `runs/`, by what is asked for and what the model is.

    `content` is a checksum of the model: one name can stand for other weights tomorrow.
    """
    return Path("runs") / f"{run_name(config)}_{content[:8]}"
