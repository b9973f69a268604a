"""Adapters of PEFT (LoRA and its kin): found beside a model or alone, and merged into its weights."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any

from dissect.base.errors import DissectError, summary
from dissect.models.hub import cache_problem, hub_is_reachable


def adapter_config(location: str, *, local_only: bool | None = None, revision: str | None = None) -> Path | None:
    """The adapter_config.json in a folder or of a hub id; None where there is none."""
    from transformers.utils.peft_utils import find_adapter_config_file

    local_only = is_local(location) if local_only is None else local_only
    try:
        found = find_adapter_config_file(location, local_files_only=local_only, revision=revision)
    except OSError:  # what cannot be read at all is said when its config is read
        return None
    return None if found is None else Path(found)


def base_name(config: Path) -> str:
    """What an adapter says that it was trained on: a name, a hub id or a folder, from the working folder or its own.

    Raises:
        DissectError: It does not say, or its config is not JSON.
    """
    try:
        name = json.loads(config.read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise DissectError(f"cannot read {config}: {summary(error)}") from error
    if not isinstance(name, str) or not name.strip():
        raise DissectError(
            f"{config} does not say what it is an adapter of (base_model_name_or_path); give both: "
            f"dissect.load_model(base, adapter={str(config.parent)!r})"
        )
    beside = config.parent / name
    return str(beside) if not os.path.isdir(name) and beside.is_dir() else name


def refuse_adapter_beside(location: str, *, local_only: bool, revision: str | None) -> None:
    """Raise `DissectError` where an adapter is beside full weights, and nobody said whether it belongs to the model."""
    if adapter_config(location, local_only=local_only, revision=revision) is not None:
        raise DissectError(
            f"{location!r} holds full weights and an adapter (adapter_config.json), which would be left out; give "
            f"adapter={location!r} to merge it, or take its files away to load the weights alone"
        )


def check_adapter(location: str) -> None:
    """Raise `DissectError` unless there is an adapter at `location` and PEFT is here to merge it."""
    if adapter_config(location) is None:
        raise DissectError(
            f"there is no adapter at {location!r} (no adapter_config.json); an adapter is a folder that PEFT's "
            f"save_pretrained wrote, or its hub id{cache_problem(location)}"
        )
    if importlib.util.find_spec("peft") is None:
        raise DissectError(f"the adapter {location!r} is merged with PEFT, which needs: pip install 'dissect[peft]'")


def is_local(location: str) -> bool:
    """True for a folder, and where the hub cannot be reached, so that only its cache can have `location`."""
    return os.path.isdir(location) or not hub_is_reachable()


def merged(hf_model: Any, location: str) -> Any:
    """`hf_model` with the adapter at `location` merged into its weights, which it changes in place.

    Raises:
        DissectError: The adapter cannot be read, is not of this model, lacks weights, or changes none.
    """
    from peft import PeftModel

    own = set(hf_model.state_dict())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, for PEFT's authors
            warnings.filterwarnings("error", message="(?s).*missing adapter keys")
            adapted = PeftModel.from_pretrained(hf_model, location, local_files_only=is_local(location))
            if not hasattr(adapted.base_model, "merge_and_unload"):
                kind = adapted.active_peft_config.peft_type
                kind = getattr(kind, "value", kind)
                raise DissectError(f"the adapter {location!r} ({kind}) changes no weights, so it cannot be merged")
            _check_placed(adapted, location, own)
            return adapted.merge_and_unload(safe_merge=True).eval()
    except DissectError:
        raise
    except Exception as error:  # PEFT, torch and safetensors raise their own kinds
        raise DissectError(
            f"cannot merge the adapter {location!r} into this {type(hf_model).__name__}: {summary(error)}"
        ) from error


def _check_placed(adapted: Any, location: str, own: set[str]) -> None:
    """Raise `DissectError` where weights of an adapter are neither its own parts nor names of the model."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    stored = load_peft_weights(location, device="cpu", local_files_only=is_local(location))
    placed = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if homeless := sorted(key for key in set(stored) - set(placed) if key.removeprefix("base_model.model.") not in own):
        raise DissectError(f"the adapter {location!r} has weights that have no place in this model: {homeless[0]}")
