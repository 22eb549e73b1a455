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
from sklearn.metrics import f1_score

from lesions import batches, training
from lesions.artifacts import write_csv
from lesions.checkpoints import Checkpoint, code, fingerprint
from lesions.diagnoses import CODES, labels_of
from lesions.errors import LesionsError
from lesions.inference import Seen
from lesions.params import Params
from lesions.photos import PhotoArray

TINY: dict[str, Any] = {"image_size": 32, "epochs": 2, "batch_size": 8, "device": "cpu"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoArray:
    """28 photos of noise, 32 px, each diagnosis with a colour of its own."""
    folder = tmp_path_factory.mktemp("resized")
    rng = np.random.default_rng(0)
    hues = rng.integers(0, 200, (7, 1, 1, 3))
    images = np.concatenate(
        [hues[[k % 7]] + rng.integers(0, 55, (1, 32, 32, 3)) for k in range(28)]
    )
    np.save(folder / "images.npy", images.astype(np.uint8))
    write_csv(folder / "image_ids.csv", table()[["image_id"]])
    return PhotoArray(folder)


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"image_id": [f"P{k:02}" for k in range(28)], "dx": [CODES[k % 7] for k in range(28)]}
    )


def run(
    photos: PhotoArray, params: Params, folder: Path, name: str = "mobilenetv2", **changes: Any
) -> training.Trained:
    small = params.model_copy(update={**TINY, **changes})
    return training.train(
        name, photos, table().iloc[:21], table().iloc[21:], small, folder / "checkpoint"
    )


def same(a: training.Trained, b: training.Trained) -> bool:
    return all(torch.equal(a.state[key], b.state[key]) for key in a.state)


def test_labels_follow_the_class_order() -> None:
    assert labels_of(table().iloc[:7]).tolist() == list(range(7))


def test_history_metrics_and_card_tell_what_happened(
    photos: PhotoArray, params: Params, tmp_path: Path
) -> None:
    trained = run(photos, params, tmp_path, epochs=3)
    assert list(trained.history["epoch"]) == [1, 2, 3]
    assert {"train_loss", "val_loss", "train_accuracy", "val_weighted_f1", "seconds"} <= set(
        trained.history
    )
    assert list(trained.metrics) == [
        "best_epoch",
        "val_loss",
        "val_weighted_f1",
        "seconds",
        "images_per_second",
    ]
    best = trained.history["val_weighted_f1"].max()
    assert trained.metrics["val_weighted_f1"] == best
    assert trained.metrics["best_epoch"] == int(trained.history["val_weighted_f1"].argmax()) + 1
    assert trained.card.classes == CODES
    assert trained.card.image_size == 32
    expected = photos.images[:21].reshape(-1, 3).mean(axis=0) / 255  # of training photos alone
    np.testing.assert_allclose(trained.card.mean, expected, atol=1e-6)
    assert trained.card.temperature != 1


def test_what_is_kept_is_what_was_validated(
    photos: PhotoArray, params: Params, tmp_path: Path
) -> None:
    from lesions.inference import predict
    from lesions.networks import Classifier, build

    trained = run(photos, params, tmp_path, epochs=3, precision="fp32")
    network = build("mobilenetv2", "random", 9)
    network.load_state_dict(trained.state)
    classifier = Classifier(network, trained.card, torch.device("cpu"), False)
    logits, features = predict(
        classifier, batches.Batches(photos.images, torch.device("cpu")), np.arange(21, 28)
    )
    classifier.subspace = trained.subspace
    assert trained.subspace.shape == (1 + 10, 1280)
    far = np.quantile(classifier.distances(features), 0.95)
    assert trained.card.strange == pytest.approx(far, abs=1e-5)
    answers, sure = logits.argmax(1), classifier.probabilities(logits).max(1)
    assert trained.card.doubt == pytest.approx(np.quantile(sure, 0.05), abs=1e-5)
    truth = labels_of(table().iloc[21:])
    expected = f1_score(truth, answers, average="weighted")
    assert trained.metrics["val_weighted_f1"] == pytest.approx(expected, abs=1e-6)


def test_last_epoch_is_kept_on_request(photos: PhotoArray, params: Params, tmp_path: Path) -> None:
    assert run(photos, params, tmp_path, keep="last").metrics["best_epoch"] == 2


def test_it_learns(photos: PhotoArray, params: Params, tmp_path: Path) -> None:
    still = params.augment.model_copy(update={"hue": 0.0, "rotation": 0.0})
    trained = run(photos, params, tmp_path, epochs=15, batch_size=21, augment=still)
    losses = trained.history["train_loss"]
    assert losses.iloc[-1] < 0.6 * losses.iloc[0]


def test_same_seed_same_weights(photos: PhotoArray, params: Params, tmp_path: Path) -> None:
    first = run(photos, params, tmp_path)
    assert same(first, run(photos, params, tmp_path))
    assert not same(first, run(photos, params, tmp_path, seed=1))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_resumed_training_ends_with_the_same_bits(
    photos: PhotoArray,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
) -> None:
    undisturbed = run(photos, params, tmp_path / "a", epochs=3, schedule=schedule)
    epoch = training.train_epoch
    started = []

    def killed_in_third(*arguments: Any) -> Any:
        started.append(arguments[-2])
        if started == [1, 2, 3]:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(training, "train_epoch", killed_in_third)
    with pytest.raises(KeyboardInterrupt):
        run(photos, params, tmp_path / "b", epochs=3, schedule=schedule)
    resumed = run(photos, params, tmp_path / "b", epochs=3, schedule=schedule)
    assert started == [1, 2, 3, 3]
    assert same(undisturbed, resumed)
    assert undisturbed.card == resumed.card


def test_the_cosine_falls_from_the_first_step_to_the_last(
    photos: PhotoArray, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def seen(optimizer: torch.optim.Adam) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", seen)
    run(photos, params, tmp_path, lr=0.01, batch_size=7, schedule="cosine")  # 2 epochs of 3 steps
    expected = [0.01, 0.00933013, 0.0075, 0.005, 0.0025, 0.00066987]
    assert rates == pytest.approx(expected, rel=1e-5)
    rates.clear()
    run(photos, params, tmp_path, lr=0.01, batch_size=7)
    assert rates == [0.01] * 6


def test_the_card_tells_which_weights_it_started_from(
    photos: PhotoArray, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hub/checkpoints/mobilenet_v2-b0353104.pth"
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.mobilenet_v2().state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    started = run(photos, params, tmp_path, weights="imagenet").card.versions
    assert started["ImageNet weights"] == digest[:16]
    assert "ImageNet weights" not in run(photos, params, tmp_path).card.versions


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one(tmp_path: Path) -> None:
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


def test_a_checkpoint_knows_the_code_that_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "network.py"
    file.write_text("a = 1")
    before = code()
    module = ModuleType("lesions.other")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "lesions.other", module)
    loaded = code()
    file.write_text("a = 2")
    assert len({before, loaded, code()}) == 3


def test_checkpoint_of_other_parameters_or_data_is_not_used(
    photos: PhotoArray,
    params: Params,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(photos, params, tmp_path)
    assert (tmp_path / "checkpoint").exists()  # the stage removes it, once the model is written
    run(photos, params, tmp_path, lr=0.01)
    assert "other parameters, data or code; training starts afresh" in capsys.readouterr().out


def test_fingerprint_knows_rows_pixels_and_parameters(photos: PhotoArray) -> None:
    swapped = table().iloc[[1, 0, *range(2, 28)]]
    other = copy.copy(photos)
    other.images = photos.images.copy()
    other.images[3, 0, 0, 0] ^= 1
    prints = [
        fingerprint({"lr": 1}, photos, table()),
        fingerprint({"lr": 2}, photos, table()),
        fingerprint({"lr": 1}, photos, swapped),
        fingerprint({"lr": 1}, other, table()),
    ]
    assert len(set(prints)) == 4
    assert prints[0] == fingerprint({"lr": 1}, photos, table())


def test_answers_on_validation_that_are_no_numbers_stop_the_run(
    photos: PhotoArray, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Seen(np.full((7, 7), np.nan, np.float32), np.zeros((7, 1280), np.float32))
    monkeypatch.setattr(training, "predict", lambda *_: nothing)
    with pytest.raises(LesionsError, match="epoch 1/2: the network's answers on validation"):
        run(photos, params, tmp_path)


def test_out_of_memory_names_what_to_lower(
    photos: PhotoArray, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "augment", full)
    with pytest.raises(LesionsError, match="batch_size 8 and image_size 32"):
        run(photos, params, tmp_path)


def test_damaged_checkpoint_is_set_aside(
    photos: PhotoArray, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint").write_bytes(b"half")
    run(photos, params, tmp_path)
    assert "damaged, set aside" in capsys.readouterr().out
    assert (tmp_path / "checkpoint.damaged").read_bytes() == b"half"


def test_checkpoint_belongs_to_its_owner(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c", lambda: "me").save({"x": torch.ones(2), "history": [{"epoch": 1}]})
    state = Checkpoint(tmp_path / "c", lambda: "me").load()
    assert state is not None
    assert state["history"] == [{"epoch": 1}]
    assert Checkpoint(tmp_path / "c", lambda: "you").load() is None


def test_loss_that_is_no_number_stops_the_run(
    photos: PhotoArray, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        training, "augment", lambda photos, *_: photos.permute(0, 3, 1, 2).float() * np.inf
    )
    with pytest.raises(LesionsError, match=r"epoch 1/2, batch 1: the loss is nan at lr 0\.001"):
        run(photos, params, tmp_path)


def test_each_observation_is_met_once_an_epoch_in_another_order(
    photos: PhotoArray, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[list[int]] = []
    call = batches.Batches.__call__

    def record(self: batches.Batches, parts: list[np.ndarray]) -> Any:
        met.append(np.concatenate(parts).tolist())
        return call(self, parts)

    monkeypatch.setattr(batches.Batches, "__call__", record)
    run(photos, params, tmp_path)
    epochs = [rows for rows in met if sorted(rows) == list(range(21)) and rows != list(range(21))]
    assert len(epochs) == 2
    assert epochs[0] != epochs[1]
