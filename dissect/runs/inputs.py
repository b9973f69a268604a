"""The model of a run and the text it reads: by name, had when they are needed and not before; or in memory already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dissect.base.errors import DissectError, shown
from dissect.data.tables import HubError
from dissect.data.windows import Windows, load_windows
from dissect.models.load import ModelSource, find_model, load_model, load_reader
from dissect.runs.config import PruneConfig

Corpus = str | tuple[Windows, Windows]
WINDOWS = "windows:"  # how a configuration names data that was handed over as Windows


class LastModel:
    """Loads the model that a configuration names, or gives that of the last one if it is the same.

    What a finished run is compared with is had without the weights, and once for many runs: checksums and texts.
    `n_devices` is how, not what: like the number of processes it is no part of the configuration.
    """

    def __init__(self, n_devices: int = 1) -> None:
        self._key, self._model = (), None
        self._n_devices = n_devices
        self._sources: dict[str, ModelSource] = {}
        self._reader: tuple[str, Any] = ("", None)
        self._texts: dict[tuple[Any, ...], dict[str, Any] | HubError] = {}

    def __call__(self, config: PruneConfig) -> Any:
        key = (config.model, config.dtype, config.device, self.checksum(config))
        if key != self._key:
            self._key, self._model = (), None  # let go of the one before the next is loaded
            options = {"dtype": config.dtype, "device": config.device, "n_devices": self._n_devices}
            self._model = load_model(config.model, **options)
            self._key = key
        return self._model

    def checksum(self, config: PruneConfig) -> str:
        """What the model's files are now (`ModelSource.checksum`)."""
        if config.model not in self._sources:
            self._sources[config.model] = find_model(config.model)
        return self._sources[config.model].checksum

    def describe(self, config: PruneConfig, side: str) -> dict[str, Any]:
        """What a side's text is now, as a run records it.

        Raises:
            HubError: It is on the hub, which cannot be reached.
            DissectError: It cannot be read.
        """
        key = (self.checksum(config), getattr(config, side), config.tokens, config.eval_tokens, config.context)
        key = (*key, config.seed)
        if key not in self._texts:
            try:
                self._texts[key] = describe(read(getattr(config, side), self._read_with(config), config))
            except HubError as error:
                self._texts[key] = error  # the next run need not wait for the hub again
        found = self._texts[key]
        if isinstance(found, HubError):
            raise found
        return found

    def _read_with(self, config: PruneConfig) -> Any:
        checksum = self.checksum(config)
        if self._reader[0] != checksum:
            self._reader = (checksum, load_reader(self._sources[config.model]))
        return self._reader[1]


@dataclass(frozen=True, eq=False)
class InMemory:
    """A model that is loaded already, in the place of the one that a configuration names."""

    model: Any

    def __call__(self, config: PruneConfig) -> Any:
        return self.model

    def checksum(self, config: PruneConfig) -> None:
        """None: no file is known to be what is in memory, which is told by its fingerprint."""

    def describe(self, config: PruneConfig, side: str) -> dict[str, Any]:
        """As `LastModel.describe`."""
        return describe(read(getattr(config, side), self.model, config))


def label(corpus: Corpus) -> str:
    """A corpus as a configuration names it.

    Raises:
        DissectError: It is neither a name nor two Windows.
    """
    if isinstance(corpus, str):
        return corpus
    if not (isinstance(corpus, tuple) and len(corpus) == 2 and all(isinstance(part, Windows) for part in corpus)):
        raise DissectError(f"a corpus is a name or a (train, test) pair of Windows, got {shown(corpus)}")
    return WINDOWS + "+".join(part.tokens_fingerprint[:12] for part in corpus)


def read(corpus: Corpus, model: Any, config: PruneConfig) -> tuple[Windows, Windows]:
    """The (train, test) windows of a corpus."""
    if not isinstance(corpus, str):
        return corpus
    train, test = (
        load_windows(corpus, model, tokens=tokens, context=config.context, split=split, seed=config.seed)
        for split, tokens in (("train", config.tokens), ("test", config.eval_tokens or config.tokens))
    )
    return train, test


def describe(windows: tuple[Windows, Windows]) -> dict[str, Any]:
    """What a run records of a side's windows."""
    train, test = windows
    return {"train": train.describe(), "test": test.describe()}
