"""Training on a real GPU; `make gpu` runs these tests where there is one."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CODES, DATASET, FP32, PARAMS, card_of, network_of

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


@pytest.mark.parametrize("model", ["resnet50", "mobilenetv2"])
def test_the_gpu_agrees_with_the_cpu_in_fp32(model: str) -> None:
    used = hardware.set_up("cuda", "fp32", deterministic=True)
    rng = np.random.default_rng(0)
    photos = torch.from_numpy(rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8))
    changes = torch.from_numpy(random_changes(8, PARAMS.augment, rng))
    on_cpu = augment(photos, changes, PARAMS.augment)
    on_gpu = augment(photos.cuda(), changes.cuda(), PARAMS.augment)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-4, rtol=0)
    outputs = [
        Classifier(network_of(model).eval(), card_of(model), hw).logits(images.clone()).cpu()
        for hw, images in ((FP32, on_cpu), (used, on_gpu))
    ]
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-3, rtol=1e-3)
