"""Training on a real GPU; `make gpu` runs these tests where there is one."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers import CODES, DATASET, FP32, PARAMS, card_of, network_of
from torch import Tensor, nn

from lesions.common.artifacts import write_csv
from lesions.dataset.photos import PhotoArray
from lesions.networks import batches, hardware
from lesions.networks.augmentation import augment, random_changes
from lesions.networks.classifier import Classifier
from lesions.training import loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Relative differences between a CPU and a GPU, in fp32. On a CPU, one thread instead of two changes
# logits by at most .0001 and gradients by .03; bf16 by .22 and 1.1.
LOGITS, GRADIENTS = 1e-3, 0.1


def train(folder: Path, model: str, **changes: Any) -> loop.Trained:
    """Train two epochs on 100 photos of noise, 64 px."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"image_id": [f"P{k:03}" for k in range(120)]})
    np.save(folder / "images.npy", rng.integers(0, 256, (120, 64, 64, 3), dtype=np.uint8))
    write_csv(folder / "image_ids.csv", rows)
    rows["lesion_id"] = rows["image_id"]
    rows["dx"] = [CODES[k % 7] for k in range(120)]
    data = loop.TrainingData(DATASET, PhotoArray(folder), rows.iloc[:100], rows.iloc[100:])
    params = PARAMS.model_copy(update={"image_size": 64, "epochs": 2, "device": "cuda", **changes})
    used = hardware.set_up(params.device, params.precision, params.deterministic)
    trained = loop.train(model, data, params, folder / "history.csv", used)
    assert trained is not None
    trained.checkpoint.remove()
    return trained


@pytest.mark.parametrize("model", ["resnet50", "mobilenetv2"])
@pytest.mark.parametrize("precision", ["auto", "fp16", "fp32"])
def test_two_trainings_give_the_same_bits(model: str, precision: str, tmp_path: Path) -> None:
    first, second = (train(tmp_path, model, precision=precision) for _ in range(2))
    for key, value in first.state.items():
        assert torch.equal(value, second.state[key]), key
        assert torch.isfinite(value).all(), key
    np.testing.assert_array_equal(first.subspace, second.subspace)


def test_photos_in_gpu_memory_or_not_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = train(tmp_path, "mobilenetv2")
    monkeypatch.setattr(batches, "has_room", lambda images, device: False)
    gathered = train(tmp_path, "mobilenetv2")
    for key, value in resident.state.items():
        assert torch.equal(value, gathered.state[key]), key


def step_of(model: str, used: hardware.Hardware, photos: Tensor, changes: Tensor) -> list[Tensor]:
    """Take one step forward and backward: logits and the gradient of each weight, on the CPU."""
    classifier = Classifier(network_of(model).train(), card_of(model), used)
    for module in classifier.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # a GPU draws other numbers
    device = classifier.device
    images = augment(photos.to(device), changes.to(device), PARAMS.augment)
    logits = classifier.logits(images)
    F.cross_entropy(logits, torch.arange(len(photos), device=device) % len(CODES)).backward()
    gradients = [weight.grad for weight in classifier.network.parameters()]
    return [tensor.detach().cpu() for tensor in (logits, *gradients) if tensor is not None]


def relative_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Compare tensors by the norm of their difference, relative to that of the expected ones."""
    one, other = (torch.cat([tensor.flatten() for tensor in part]) for part in (found, expected))
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("model", ["resnet50", "mobilenetv2"])
def test_logits_and_gradients_agree_with_the_cpu_in_fp32(model: str) -> None:
    used = hardware.set_up("cuda", "fp32", deterministic=True)
    rng = np.random.default_rng(0)
    photos = torch.from_numpy(rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8))
    changes = torch.from_numpy(random_changes(8, PARAMS.augment, rng))
    on_cpu = augment(photos, changes, PARAMS.augment)
    on_gpu = augment(photos.cuda(), changes.cuda(), PARAMS.augment)
    assert relative_difference([on_gpu.cpu()], [on_cpu]) < 1e-5
    logits, *gradients = step_of(model, FP32, photos, changes)
    other_logits, *other_gradients = step_of(model, used, photos, changes)
    assert relative_difference([other_logits], [logits]) < LOGITS
    assert relative_difference(other_gradients, gradients) < GRADIENTS
