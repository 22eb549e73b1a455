"""Hardware: the device to compute on, its precision, and deterministic results."""

import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch

from lesions.common.errors import LesionsError
from lesions.common.names import count_of

Precision = Literal["bf16", "fp16", "tf32", "fp32"]
# What autocast computes in; the other two are settings of fp32 arithmetic.
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Hardware(NamedTuple):
    """What a network is computed with."""

    device: torch.device
    precision: Precision


def set_up(device: str, precision: str, deterministic: bool) -> Hardware:
    """Resolve the parameters `device`, `precision` and `deterministic`, and set torch up for them.

    To be called before anything else runs: cuBLAS and NCCL read some settings when they start.

    Raises:
        LesionsError: the device is not available, or cannot compute in this precision.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    # Filling memory only helps to find bugs, and costs passes over memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    chosen = pick_device(device)
    used = pick_precision(precision, chosen)
    return Hardware(chosen, used)


def pick_device(name: str) -> torch.device:
    """Resolve the parameter `device`: `auto` is the first that can be used of cuda, mps, cpu.

    A GPU that is there but cannot be used is reported on stderr.

    Raises:
        LesionsError: the device cannot be used.
    """
    problem = cuda_problem()
    available = {
        "cuda": torch.cuda.is_available() and not problem,
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, found in available.items() if found)
        if problem:
            print(f"{problem} Using {name} instead.", file=sys.stderr)
    if not available[name]:
        raise LesionsError(
            f"device: {name} is not available here; available are "
            f"{', '.join(kind for kind, found in available.items() if found)}, or auto."
            + (f" {problem}" if name == "cuda" and problem else "")
        )
    return torch.device(name)


def cuda_problem() -> str:
    """Say why this torch cannot use the NVIDIA GPU of this machine; empty if it can, or has none.

    A build of torch has kernels for some GPUs only: those named sm_XY run on capability X.Y and
    above with the same X, those named compute_XY on X.Y and above.
    """
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        driver = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
        if hidden or not driver:
            return ""
        if torch.version.cuda is None:
            return (
                f"There is an NVIDIA driver, but torch {torch.__version__} is a build without "
                "CUDA. Install one with CUDA: pytorch.org/get-started."
            )
        return (
            f"There is an NVIDIA driver, but torch {torch.__version__} (CUDA {torch.version.cuda}) "
            "finds no GPU that it can use. See nvidia-smi: is a GPU there, and is the driver new "
            "enough? Update the driver, or install torch for an older CUDA."
        )
    if torch.version.cuda is None:  # an AMD GPU
        return ""
    capability, kernels = torch.cuda.get_device_capability(), torch.cuda.get_arch_list()
    for kind, major, minor in re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(kernels)):
        built_for = int(major), int(minor)
        if built_for <= capability and (kind == "compute" or built_for[0] == capability[0]):
            return ""
    return (
        f"{torch.cuda.get_device_name()} has CUDA capability {capability[0]}.{capability[1]}, but "
        f"torch {torch.__version__} has kernels for {', '.join(kernels)} only. Install a torch "
        "that supports this GPU, often an older one."
    )


def pick_precision(name: str, device: torch.device) -> Precision:
    """Resolve the parameter `precision`: `auto` is the fastest that the device has circuits for.

    On a GPU bf16, or fp16 where only that is there (capability 7.0 and 7.5: V100, T4); on a CPU
    bf16 or fp32. Emulated, bf16 is ten times slower than fp32 on a CPU with AVX2 only.

    Raises:
        LesionsError: fp16 on another device than a GPU, where it would take hours.
    """
    if name == "tf32" and device.type != "cuda":
        return "fp32"
    if name == "fp16" and device.type != "cuda":
        raise LesionsError(f"precision: fp16 needs an NVIDIA GPU; on {device.type} use auto.")
    if name != "auto":
        return cast(Precision, name)
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability() >= (7, 0) else "fp32"
    if device.type != "cpu":
        return "fp32"
    # torch 2.7 cannot say what the processor has: fp32 then.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return "bf16" if fast else "fp32"


def describe_device(device: torch.device) -> str:
    """Name the device for the model card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}), {count_of(torch.get_num_threads(), 'thread')}"
