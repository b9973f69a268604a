"""Which device and which dtype a model is loaded with when the user names none."""

from __future__ import annotations

import os

import torch

from dissect.base.errors import DissectError, shown, unknown

MPS_FROM = (2, 9)
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU. Never Apple's MPS, whose results TransformerLens calls unreliable."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes it natively, else float32."""
    if device.type == "cuda":
        # Without `including_emulation=False` it says True for GPUs that only emulate it, slowly.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and _cpu_has_bfloat16()
    return torch.bfloat16 if native else torch.float32


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the default.

    Raises:
        DissectError: There is no such device here.
    """
    if device is None:
        return default_device()
    try:
        found = torch.device(device)
        torch.empty(1, device=found).tolist()
    # torch says AssertionError where it was built without CUDA.
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError, OverflowError) as error:
        raise DissectError(
            f"device {shown(str(device))} cannot be used here ({error}); leave it out or say 'cpu'"
        ) from error
    if found.type == "mps":
        check_mps(torch.__version__)
    return found


def check_mps(version: str) -> None:
    """Raise `DissectError` for a version of torch whose results on Apple's GPUs are known to be wrong at times."""
    if tuple(int(part) for part in version.split(".")[:2]) < MPS_FROM:
        needed = ".".join(map(str, MPS_FROM))
        raise DissectError(f"device 'mps' needs torch {needed} or later, here is {version}; say 'cpu'")


def check_n_devices(n_devices: int, device: torch.device, *, encoder: bool) -> None:
    """Raise `DissectError` unless a model can be spread over `n_devices` GPUs here."""
    if not isinstance(n_devices, int) or isinstance(n_devices, bool) or n_devices < 1:
        raise DissectError(f"n_devices must be a whole number, 1 or more, got {n_devices!r}")
    if n_devices == 1:
        return
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if there < n_devices:
        raise DissectError(f"n_devices={n_devices} needs {n_devices} GPUs, there are {there} on device '{device}'")
    if encoder:
        raise DissectError(f"a masked model stays on one device, got n_devices={n_devices}")
    if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1:
        raise DissectError(
            f"n_devices={n_devices} takes the GPUs of the other processes on this machine; start one process a machine "
            "(torchrun --nproc-per-node 1)"
        )


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, by name or as torch's, or the device's default.

    Raises:
        DissectError: It is none of `DTYPES`.
    """
    if dtype is None:
        return default_dtype(device)
    found = DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise unknown("dtype", dtype, DTYPES)
    return found


def _cpu_has_bfloat16() -> bool:
    """True if the CPU multiplies bfloat16 itself (AVX512-BF16 or AMX): emulation is slower than float32."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)
