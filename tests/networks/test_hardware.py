import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import CPU

from lesions.common.errors import LesionsError
from lesions.networks import hardware

CUDA = torch.device("cuda")
KERNELS = ["sm_75", "sm_80", "sm_90a", "sm_120"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that there is a GPU."""

    def pretend(
        capability: tuple[int, int], kernels: list[str] = KERNELS, bf16: bool = True
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA X")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: kernels)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)

    return pretend


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that torch finds no GPU, but that there is an NVIDIA driver."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("no_gpu")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(LesionsError, match="device: cuda is not available here; available are cpu"):
        hardware.pick_device("cuda")


def test_auto_takes_the_fastest_there_is(
    gpu: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    gpu((9, 0))
    assert hardware.pick_device("auto") == CUDA
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("build", "message"),
    [("13.0", "is the driver new enough"), (None, "is a build without CUDA")],
)
@pytest.mark.usefixtures("no_gpu")
def test_a_driver_without_a_gpu_that_torch_can_use_is_reported(
    build: str | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.version, "cuda", build)
    assert hardware.pick_device("auto").type == "cpu"
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.endswith("Using cpu instead.\n")
    # Hidden on purpose, or no driver: nothing to report.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hardware.pick_device("auto")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    hardware.pick_device("auto")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("capability", "kernels", "runs"),
    [
        ((7, 5), KERNELS, True),  # T4
        ((8, 6), KERNELS, True),  # A10: the kernels of 8.0
        ((6, 0), KERNELS, False),  # P100, of the original study
        ((7, 0), KERNELS, False),  # V100: the kernels of 7.5 do not run on 7.0
        ((10, 0), KERNELS, False),
        ((13, 0), [*KERNELS, "compute_120"], True),  # compiled by the driver
        ((6, 0), ["sm_50", "sm_70"], False),
        ((6, 1), ["sm_60", "sm_70"], True),
    ],
)
def test_a_gpu_needs_kernels_in_this_torch(
    capability: tuple[int, int],
    kernels: list[str],
    runs: bool,
    gpu: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpu(capability, kernels)
    assert hardware.pick_device("auto").type == ("cuda" if runs else "cpu")
    message = f"NVIDIA X has CUDA capability {capability[0]}.{capability[1]}, but torch "
    assert (message in capsys.readouterr().err) != runs
    if not runs:
        with pytest.raises(LesionsError, match=r"has kernels for sm_.* only\. Install"):
            hardware.pick_device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32")],
)
def test_auto_precision_is_bf16_where_the_processor_has_it(
    capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert hardware.pick_precision("auto", CPU) == expected
    assert hardware.pick_precision("bf16", CPU) == "bf16"
    assert hardware.pick_precision("fp32", CPU) == "fp32"
    assert hardware.pick_precision("tf32", CPU) == "fp32"  # what will run
    with pytest.raises(LesionsError, match="precision: fp16 needs an NVIDIA GPU"):
        hardware.pick_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("capability", "bf16", "expected"),
    [((9, 0), True, "bf16"), ((7, 5), False, "fp16"), ((6, 0), False, "fp32")],
)
def test_auto_precision_on_a_gpu(
    capability: tuple[int, int], bf16: bool, expected: str, gpu: Callable[..., None]
) -> None:
    gpu(capability, bf16=bf16)
    assert hardware.pick_precision("auto", CUDA) == expected
    assert hardware.pick_precision("tf32", CUDA) == "tf32"


def test_the_set_up(gpu: Callable[..., None]) -> None:
    gpu((9, 0))
    assert hardware.set_up("auto", "fp32", deterministic=True) == (CUDA, "fp32")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
