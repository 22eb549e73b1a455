"""Hardware: the device to compute on, its precision, and deterministic results."""

import os
import platform

import torch

from lesions.common.errors import LesionsError


def pick_device(name: str) -> torch.device:
    """Resolve the parameter `device`.

    Raises:
        LesionsError: the device is not available.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, found in available.items() if found)
    if not available[name]:
        raise LesionsError(
            f"device: {name} is not available here; available are "
            f"{', '.join(kind for kind, found in available.items() if found)}, or auto."
        )
    return torch.device(name)


def use_bf16(precision: str, device: torch.device) -> bool:
    """Resolve the parameter `precision`: `auto` is bf16 where the device has instructions for it.

    Without them bf16 is emulated: ten times slower than fp32 on a CPU with AVX2 only.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def describe(device: torch.device) -> str:
    """Name the device for the model card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}), {torch.get_num_threads()} threads"


def compute_deterministically(wanted: bool) -> None:
    """Make every operation give the same bits in every run on this machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(wanted)
    # Filling memory only helps to find bugs, and costs passes over memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not wanted
