"""What a model's folder holds beside its weights and its config, which an exported folder shares with it."""

from __future__ import annotations

import shutil
from pathlib import Path

from dissect.base.errors import DissectError
from dissect.base.tokenizer_files import is_tokenizer_file
from dissect.models.hub import files_of

# config.json and README.md are written anew; an adapter is in the weights.
OWN_FILES = ("config.json", "README.md", "adapter_config.json")
# Weights in any format, and what training keeps beside them; and code.
NOT_COPIED = """.safetensors .bin .pt .pth .ckpt .msgpack .h5 .ot .onnx .onnx_data .gguf .npz .pkl .pickle .tflite
.index.json .py .pyc .so""".split()
MOST_COPIED = 64 << 20  # bytes of a file that is not of a tokenizer


def copy_side_files(location: str, target: Path) -> None:
    """Copy tokenizer, chat templates, generation config, licence and the like, as they are, into a folder.

    Args:
        location: The local folder or hub id of the model.
        target: The folder; what it holds of the same name is replaced.

    Raises:
        OSError: One cannot be read or written.
        DissectError: A hub model is not in the hub's cache any more.
    """
    folder = files_of(location)
    if folder is None:
        raise DissectError(f"the files of {location!r} are not in the hub's cache any more; load the model again")
    for path in (*folder.glob("*"), *folder.glob("additional_chat_templates/*.jinja")):
        if path.is_file() and _is_shared(path):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)


def _is_shared(path: Path) -> bool:
    if path.name.startswith(".") or path.name in OWN_FILES or path.name.endswith(tuple(NOT_COPIED)):
        return False
    return is_tokenizer_file(path.name) or path.stat().st_size <= MOST_COPIED
