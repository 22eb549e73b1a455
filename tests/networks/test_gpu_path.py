"""What a GPU would run, checked without one: shapes, dtypes and devices, but no values."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import PARAMS, card_of, network_of
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lesions.networks import batches
from lesions.networks.batches import PhotoLoader
from lesions.networks.classifier import Classifier
from lesions.networks.hardware import Hardware
from lesions.training import epochs
from lesions.training.epochs import LabelledRows, Training, train_one_epoch
from lesions.training.processes import Processes

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


def backward(loss: Tensor, *_: Any, **__: Any) -> None:
    """Give every weight of the network that made the loss a gradient; the real one needs a GPU."""
    assert loss.device.type == "cuda"
    for weight in WEIGHTS:
        weight.grad = torch.zeros_like(weight)


WEIGHTS: list[nn.Parameter] = []


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2"])
def test_an_epoch_stays_on_the_gpu(
    name: str, precision: str, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "has_room", lambda images, device: resident)
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    fetched: list[Tensor] = []

    def fetch(losses: list[Tensor], *_: object) -> np.ndarray:
        fetched.extend(losses)
        return np.zeros(len(losses))

    monkeypatch.setattr(epochs, "_fetch", fetch)
    model = classifier(name, precision)
    WEIGHTS[:] = list(model.network.parameters())
    optimizer = torch.optim.Adam(model.network.parameters(), fused=True)
    images = np.zeros((20, 64, 64, 3), np.uint8)
    rows = LabelledRows(np.arange(20), np.arange(20) % 7)
    training = Training(
        model=name,
        params=PARAMS.model_copy(update={"batch_size": 8}),
        processes=Processes(),
        loader=PhotoLoader(images, CUDA, resident=True),
        train=rows,
        val=rows,
        train_groups=pd.Series(np.arange(20).astype(str)),
        val_photos=pd.DataFrame(),
        classifier=model,
        parallel=model,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler("cuda", enabled=precision == "fp16"),
    )
    with contextlib.suppress(RuntimeError, TypeError):  # the predictions have no values to fetch
        train_one_epoch(training, 1)
    assert [loss.device.type for loss in fetched] == ["cuda"] * len(fetched)
    assert {loss.dtype for loss in fetched} == {torch.float32}
    assert len(fetched) >= 3  # three batches
    states = list(optimizer.state.values())
    assert len(states) == len(WEIGHTS)
    assert {state["exp_avg"].device.type for state in states} == {"cuda"}


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
