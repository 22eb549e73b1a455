"""What a GPU would run, checked without one: shapes, dtypes and devices, but no values."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import PARAMS, card_of, network_of
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lesions.networks import batches
from lesions.networks.augmentation import augment
from lesions.networks.batches import PhotoLoader
from lesions.networks.classifier import Classifier
from lesions.networks.hardware import Hardware

CUDA = torch.device("cuda")


def move(network: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """Do what `Module.to` does, which refuses tensors without values."""
    for module in network.modules():
        stores: list[dict[str, Any]] = [module._parameters, module._buffers]
        for tensors in stores:
            for key, tensor in tensors.items():
                if tensor is not None:
                    layout = memory_format if tensor.dim() == 4 else torch.preserve_format
                    moved = tensor.detach().to(device, memory_format=layout)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    tensors[key] = nn.Parameter(moved) if is_parameter else moved
    return network


@pytest.fixture(autouse=True)
def no_values(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make tensors that only have a shape, a dtype and a device, which need not exist."""
    monkeypatch.setattr(nn.Module, "to", move)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            torch.empty(1).to(CUDA) + 1
        except RuntimeError:
            pytest.skip("this torch has no tensors of a GPU that is not there")
        yield


def classifier(name: str, precision: str) -> Classifier:
    return Classifier(network_of(name), card_of(name), Hardware(CUDA, precision))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2"])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_training_step_stays_on_the_gpu(name: str, precision: str) -> None:
    model = classifier(name, precision)
    optimizer = torch.optim.Adam(model.network.parameters(), fused=True)
    photos = torch.zeros(4, 64, 64, 3, dtype=torch.uint8, device=CUDA)
    changes = torch.zeros(4, 7, device=CUDA)
    images = augment(photos, changes, PARAMS.augment)
    assert images.device.type == "cuda"
    assert images.shape == (4, 3, 64, 64)
    logits = model.logits(images)
    loss = F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64, device=CUDA), reduction="sum")
    assert (logits.device.type, logits.dtype) == ("cuda", torch.float32)
    assert loss.device.type == "cuda"
    # The backward pass itself needs a real GPU.
    for parameter in model.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = optimizer.state[next(model.network.parameters())]
    assert state["exp_avg"].device.type == "cuda"


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2"])
def test_inference_stays_on_the_gpu(name: str) -> None:
    model = classifier(name, "bf16")
    model.network.eval()
    logits, features = model.logits_and_features(torch.zeros(4, 3, 64, 64, device=CUDA))
    assert (logits.device.type, features.device.type) == ("cuda", "cuda")
    assert (logits.dtype, features.dtype) == (torch.float32, torch.float32)


def test_resident_batches_are_gathered_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "has_room", lambda images, device: True)
    loader = PhotoLoader(np.zeros((50, 8, 8, 3), np.uint8), CUDA, resident=True)
    assert loader.resident
    got = list(loader([np.arange(8), np.arange(5)]))
    assert [tuple(batch.shape) for batch in got] == [(8, 8, 8, 3), (5, 8, 8, 3)]
    assert {(batch.device.type, batch.dtype) for batch in got} == {("cuda", torch.uint8)}


@pytest.mark.parametrize(("free", "resident"), [(2**20, False), (2**30, True)])
def test_photos_are_resident_if_they_fit_twice(
    free: int, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**34))
    images = np.zeros((50, 100, 100, 3), np.uint8)  # 1.5 MB
    assert PhotoLoader(images, CUDA, resident=True).resident is resident
    assert not PhotoLoader(images, CUDA).resident
    assert not batches.has_room(images, torch.device("cpu"))
