"""What is asked of a relearning, and the trainings that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from dissect.base.checks import LARGEST, check_batch_size, check_kind, check_positive, check_seed, check_whole
from dissect.base.errors import DissectError, check_name, shown
from dissect.data.splits import SIDES
from dissect.evidence.anamnesis import check_alpha

WAYS = ("full", "lora")
PRUNED, RANDOM, UNPRUNED, GOLD = KINDS = ("pruned", "random", "unpruned", "gold")
MOST = {"steps": 1_000_000, "windows": 100_000, "rank": 10_000, "eval_tokens": LARGEST}
LORA_RATE = 10  # times the rate of full weights: what adapters want at any size ("LoRA Without Regret", 2025)


@dataclass(frozen=True)
class RelearnConfig:
    """How a pruned model and its controls are trained further, and measured.

    Attributes:
        on: What is trained on: forget, to see how fast it comes back (relearning), or retain (healing).
        steps: Steps of each training.
        windows: Windows a step reads.
        learning_rates: AdamW's, each a training of its own; adapters (lora) are trained at ten times the rate.
        ways: What is trained: full (all weights) or lora (adapters of PEFT on every linear layer), or both.
        frozen: Whether what was cut is held at exactly zero (True), may come back (False), or both.
        rank: The rank of adapters.
        alpha: How near to the original accuracy counts as back, as a fraction of it.
        eval_tokens: At most so many predictions of each test text.
        seed: Seed of the order of windows, of adapters, and of the random control.
        batch_size: Windows in a pass forward and back; about 1,024 tokens if not given.
        save: Keep the trained models that were pruned, each as a transformers folder.
    """

    on: str = "forget"
    steps: int = 20
    windows: int = 8
    learning_rates: tuple[float, ...] = (1e-4, 3e-4)
    ways: tuple[str, ...] = ("full",)
    frozen: tuple[bool, ...] = (True, False)
    rank: int = 8
    alpha: float = 0.05
    eval_tokens: int = 6_000
    seed: int = 0
    batch_size: int | None = None
    save: bool = True

    def check(self) -> None:
        """Raise `DissectError` unless every value can be."""
        check_name("side to train on", self.on, SIDES)
        for name, most in MOST.items():
            check_whole(name, getattr(self, name), 1, most)
        for rate in _several("learning_rates", self.learning_rates):
            check_positive("a learning rate", rate)
        for way in _several("ways", self.ways):
            check_name("way to train", way, WAYS)
        for frozen in _several("frozen", self.frozen):
            check_kind("each of frozen", frozen, bool, "True or False")
        check_alpha(self.alpha)
        check_seed(self.seed)
        check_batch_size(self.batch_size)
        check_kind("save", self.save, bool, "True or False")

    def as_json(self) -> dict[str, Any]:
        """Its fields, ready for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> RelearnConfig:
        """Read what `as_json` gave.

        Raises:
            DissectError: A value cannot be.
        """
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        try:
            config = cls(**values)
        except TypeError as error:
            raise DissectError(f"its config does not fit this version of dissect: {error}") from error
        config.check()
        return config

    @property
    def measured_at(self) -> list[int]:
        """The steps after which a model is measured: 0, 1, 2, 5, 10, 20, 50, ... and the last."""
        found = [0] + [lead * 10**power for power in range(len(str(self.steps))) for lead in (1, 2, 5)]
        return [step for step in found if step < self.steps] + [self.steps]


def _several(name: str, values: Any) -> Sequence[Any]:
    if not isinstance(values, (tuple, list)) or not values:
        raise DissectError(f"{name} must be a tuple of at least one value, got {shown(values)}")
    if len(set(map(repr, values))) < len(values):
        raise DissectError(f"{name} names a value twice, got {shown(values)}")
    return values


@dataclass(frozen=True)
class Arm:
    """One training.

    Attributes:
        model: What is trained: `pruned`, or a control: `random` (as many units cut at random), `unpruned` or `gold` (a
            model that never saw the forgotten text).
        way: `full` or `lora`.
        frozen: Whether what was cut is held at zero; None where nothing was cut.
        learning_rate: As it was asked for.
    """

    model: str
    way: str
    frozen: bool | None
    learning_rate: float

    @property
    def name(self) -> str:
        """A name for its files."""
        held = {True: "-frozen", False: "-free", None: ""}[self.frozen]
        return f"{self.model}-{self.way}{held}-{self.learning_rate:g}"

    @property
    def rate(self) -> float:
        """The learning rate that its optimizer has."""
        return self.learning_rate * (LORA_RATE if self.way == "lora" else 1)


def arms_of(config: RelearnConfig, *, gold: bool = False) -> list[Arm]:
    """All trainings: the pruned model first; what is held before what is free, which may turn out to be the same."""
    cut = [
        Arm(model, way, frozen, rate)
        for model, way, frozen, rate in product(
            (PRUNED, RANDOM), config.ways, sorted(config.frozen, reverse=True), config.learning_rates
        )
    ]
    whole = (UNPRUNED, GOLD) if gold else (UNPRUNED,)
    return cut + [Arm(*each) for each in product(whole, config.ways, (None,), config.learning_rates)]
