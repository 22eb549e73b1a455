"""Hardware: which device computes, in which precision, and whether always in the same order."""

import os
import platform
from typing import TYPE_CHECKING

from lesions.errors import LesionsError

if TYPE_CHECKING:
    from torch import device


def pick_device(name: str) -> "device":
    """Resolve the parameter `device`.

    Raises:
        LesionsError: the device asked for is not there.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, found in there.items() if found)
    if not there[name]:
        raise LesionsError(
            f"device: {name} is not available here; available are "
            f"{', '.join(kind for kind, found in there.items() if found)}, or auto."
        )
    return torch.device(name)


def use_bf16(precision: str, place: "device") -> bool:
    """Resolve the parameter `precision`: `auto` is bf16 where `place` has instructions for it.

    Where it has none, bf16 is emulated: ten times slower than fp32 on a CPU with AVX2 alone.
    """
    import torch

    if precision != "auto":
        return precision == "bf16"
    if place.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if place.type == "cpu" else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def describe(place: "device") -> str:
    """Name the device as a reader of a result would."""
    import torch

    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return f"{torch.get_num_threads()} threads of a {platform.machine()} {place.type}"


def compute_deterministically(wanted: bool) -> None:
    """Make every operation give the same bits from run to run on this machine."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(wanted)
    # Only ever of use to find bugs, at the cost of passes over memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not wanted
