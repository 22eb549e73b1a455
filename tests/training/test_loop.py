import copy
import hashlib
import resource
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from helpers import CPU, network_of
from sklearn.metrics import f1_score

from lesions.common.errors import LesionsError
from lesions.common.params import Params
from lesions.dataset.diagnoses import CODES, labels_of
from lesions.dataset.photos import PhotoArray
from lesions.networks import batches, key_metrics, out_of_distribution
from lesions.networks.classifier import Classifier
from lesions.networks.inference import Outputs, run_inference
from lesions.training import epochs, loop
from lesions.training.checkpoints import Checkpoint, code_digest, fingerprint

TINY: dict[str, Any] = {"image_size": 32, "epochs": 2, "batch_size": 8, "device": "cpu"}


@pytest.fixture
def data(noise: PhotoArray, noise_table: pd.DataFrame) -> loop.TrainingData:
    """21 photos of noise for training, seven for validation."""
    return loop.TrainingData(noise, noise_table.iloc[:21], noise_table.iloc[21:])


def run(
    data: loop.TrainingData,
    params: Params,
    folder: Path,
    name: str = "mobilenetv2",
    **changes: Any,
) -> loop.Trained:
    small = params.model_copy(update={**TINY, **changes})
    return loop.train(name, data, small, loop.Files(folder / "history.csv", folder / "checkpoint"))


def same(a: loop.Trained, b: loop.Trained) -> bool:
    return all(torch.equal(a.state[key], b.state[key]) for key in a.state)


def test_history_metrics_and_card(data: loop.TrainingData, params: Params, tmp_path: Path) -> None:
    trained = run(data, params, tmp_path, epochs=3)
    history = trained.history
    assert list(history["epoch"]) == [1, 2, 3]
    assert {"train_loss", "val_loss", "train_accuracy", "seconds"} <= set(history)
    assert set(history["model"]) == {"MobileNetV2"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), history)
    # The epoch that is used is the first with the highest weighted F1.
    assert list(history["best"]) == [
        int(k == history["val_weighted_f1"].argmax()) for k in range(3)
    ]
    assert tuple(trained.metrics) == key_metrics.NAMES
    best = history["val_weighted_f1"].max()
    assert trained.metrics["weighted_f1"] == pytest.approx(best, abs=1e-4)
    assert trained.card.classes == CODES
    assert trained.card.image_size == 32
    expected = data.photos.images[:21].reshape(-1, 3).mean(axis=0) / 255  # training photos only
    np.testing.assert_allclose(trained.card.mean, expected, atol=1e-6)
    assert trained.card.temperature != 1
    assert loop.describe(trained).startswith("MobileNetV2: epoch ")


def test_the_best_epochs_weights_are_those_that_were_validated(
    data: loop.TrainingData, params: Params, tmp_path: Path
) -> None:
    trained = run(data, params, tmp_path, epochs=3, precision="fp32")
    network = network_of("mobilenetv2", seed=9)
    network.load_state_dict(trained.state)
    classifier = Classifier(network, trained.card, CPU, False)
    loader = batches.PhotoLoader(data.photos.images, CPU)
    logits, features = run_inference(classifier, loader, np.arange(21, 28))
    assert trained.subspace.shape == (1 + 10, 1280)
    distances = out_of_distribution.distances(features, trained.subspace)
    threshold = trained.card.distance_threshold
    assert threshold == pytest.approx(np.quantile(distances, 0.95), abs=1e-5)
    confidence = classifier.probabilities(logits).max(axis=1)
    threshold = trained.card.confidence_threshold
    assert threshold == pytest.approx(np.quantile(confidence, 0.05), abs=1e-5)
    expected = f1_score(labels_of(data.val), logits.argmax(1), average="weighted")
    assert trained.metrics["weighted_f1"] == pytest.approx(expected, abs=1e-4)


def test_the_last_epoch_is_used_on_request(
    data: loop.TrainingData, params: Params, tmp_path: Path
) -> None:
    assert list(run(data, params, tmp_path, keep="last").history["best"]) == [0, 1]


def test_it_learns(data: loop.TrainingData, params: Params, tmp_path: Path) -> None:
    still = params.augment.model_copy(update={"hue": 0.0, "rotation": 0.0})
    trained = run(data, params, tmp_path, epochs=15, batch_size=21, augment=still)
    losses = trained.history["train_loss"]
    assert losses.iloc[-1] < 0.6 * losses.iloc[0]


def test_same_seed_same_weights(data: loop.TrainingData, params: Params, tmp_path: Path) -> None:
    first = run(data, params, tmp_path)
    assert same(first, run(data, params, tmp_path))
    assert not same(first, run(data, params, tmp_path, seed=1))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_killed_training_leaves_its_history_and_resumes_with_the_same_bits(
    data: loop.TrainingData,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
) -> None:
    undisturbed = run(data, params, tmp_path / "a", epochs=3, schedule=schedule)
    train_one_epoch = epochs.train_one_epoch
    started = []

    def killed_in_third(training: epochs.Training, epoch: int) -> epochs.EpochResult:
        started.append(epoch)
        if started == [1, 2, 3]:
            raise KeyboardInterrupt
        return train_one_epoch(training, epoch)

    monkeypatch.setattr(loop, "train_one_epoch", killed_in_third)
    with pytest.raises(KeyboardInterrupt):
        run(data, params, tmp_path / "b", epochs=3, schedule=schedule)
    assert list(pd.read_csv(tmp_path / "b/history.csv")["epoch"]) == [1, 2]
    resumed = run(data, params, tmp_path / "b", epochs=3, schedule=schedule)
    assert started == [1, 2, 3, 3]
    assert same(undisturbed, resumed)
    assert undisturbed.card == resumed.card
    untimed = ["seconds", "photos_per_second"]
    pd.testing.assert_frame_equal(
        undisturbed.history.drop(columns=untimed), resumed.history.drop(columns=untimed)
    )


def test_the_cosine_falls_from_the_first_step_to_the_last(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def recorded(optimizer: torch.optim.Adam) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    run(data, params, tmp_path, lr=0.01, batch_size=7, schedule="cosine")  # 2 epochs of 3 steps
    expected = [0.01, 0.00933013, 0.0075, 0.005, 0.0025, 0.00066987]
    assert rates == pytest.approx(expected, rel=1e-5)
    rates.clear()
    run(data, params, tmp_path, lr=0.01, batch_size=7)
    assert rates == [0.01] * 6


def test_the_card_says_which_weights_training_started_from(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hub/checkpoints/mobilenet_v2-b0353104.pth"
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.mobilenet_v2().state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    versions = run(data, params, tmp_path, weights="imagenet").card.versions
    assert versions["ImageNet weights"] == digest[:16]
    assert "ImageNet weights" not in run(data, params, tmp_path).card.versions


def test_a_checkpoint_that_does_not_fit_the_disk_leaves_the_last_one(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", lambda: "mine")
    checkpoint.save({"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):  # not torch's RuntimeError
            checkpoint.save({"epoch": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoint.load() == {"owner": "mine", "epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


def test_a_checkpoint_depends_on_the_code_that_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "network.py"
    file.write_text("a = 1")
    before = code_digest()
    module = ModuleType("lesions.other")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "lesions.other", module)
    loaded = code_digest()
    file.write_text("a = 2")
    assert len({before, loaded, code_digest()}) == 3


def test_a_checkpoint_of_other_parameters_is_not_used(
    data: loop.TrainingData, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(data, params, tmp_path)
    assert (tmp_path / "checkpoint").exists()  # the stage removes it after writing the model
    run(data, params, tmp_path, lr=0.01)
    assert "other parameters, data or code; training starts again" in capsys.readouterr().out


def test_the_fingerprint_depends_on_rows_pixels_and_parameters(
    noise: PhotoArray, noise_table: pd.DataFrame
) -> None:
    swapped = noise_table.iloc[[1, 0, *range(2, 28)]]
    other = copy.copy(noise)
    other.images = noise.images.copy()
    other.images[3, 0, 0, 0] ^= 1
    prints = [
        fingerprint({"lr": 1}, noise, noise_table),
        fingerprint({"lr": 2}, noise, noise_table),
        fingerprint({"lr": 1}, noise, swapped),
        fingerprint({"lr": 1}, other, noise_table),
    ]
    assert len(set(prints)) == 4
    assert prints[0] == fingerprint({"lr": 1}, noise, noise_table)


def test_logits_that_are_not_finite_stop_the_run(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Outputs(np.full((7, 7), np.nan, np.float32), np.zeros((7, 1280), np.float32))
    monkeypatch.setattr(epochs, "run_inference", lambda *_: nothing)
    with pytest.raises(LesionsError, match="epoch 1/2: the logits on validation are not finite"):
        run(data, params, tmp_path)


def test_out_of_memory_names_what_to_lower(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(epochs, "augment", full)
    with pytest.raises(LesionsError, match="batch_size 8 and image_size 32"):
        run(data, params, tmp_path)


def test_a_damaged_checkpoint_is_moved_away(
    data: loop.TrainingData, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint").write_bytes(b"half")
    run(data, params, tmp_path)
    assert "damaged, moved to checkpoint.damaged" in capsys.readouterr().out
    assert (tmp_path / "checkpoint.damaged").read_bytes() == b"half"


def test_a_checkpoint_belongs_to_its_owner(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c", lambda: "me").save({"x": torch.ones(2), "history": [{"epoch": 1}]})
    state = Checkpoint(tmp_path / "c", lambda: "me").load()
    assert state is not None
    assert state["history"] == [{"epoch": 1}]
    assert Checkpoint(tmp_path / "c", lambda: "you").load() is None


def test_a_loss_that_is_not_finite_stops_the_run(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infinite(photos: torch.Tensor, *_: Any) -> torch.Tensor:
        return photos.permute(0, 3, 1, 2).float() * np.inf

    monkeypatch.setattr(epochs, "augment", infinite)
    with pytest.raises(LesionsError, match=r"epoch 1/2, batch 1: the loss is nan at lr 0\.001"):
        run(data, params, tmp_path)


def test_each_epoch_uses_every_observation_once_in_another_order(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[list[int]] = []
    load = batches.PhotoLoader.__call__

    def recorded(self: batches.PhotoLoader, parts: list[np.ndarray]) -> Any:
        loaded.append(np.concatenate(parts).tolist())
        return load(self, parts)

    monkeypatch.setattr(batches.PhotoLoader, "__call__", recorded)
    run(data, params, tmp_path)
    ordered = list(range(21))
    shuffled = [rows for rows in loaded if sorted(rows) == ordered and rows != ordered]
    assert len(shuffled) == 2
    assert shuffled[0] != shuffled[1]
