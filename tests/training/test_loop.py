import copy
import hashlib
import os
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
from helpers import CODES, CPU, DATASET, FP32, network_of
from sklearn.metrics import f1_score

from lesions.common.errors import LesionsError
from lesions.common.params import NetworkSpec, Params, Views
from lesions.dataset.metadata import groups_of
from lesions.dataset.photos import PhotoArray
from lesions.networks import batches, hardware, model_file
from lesions.networks.classifier import Classifier
from lesions.networks.inference import Outputs, run_inference
from lesions.scoring import out_of_distribution
from lesions.scoring.fitted import fit
from lesions.scoring.metrics import metrics_of
from lesions.serving.predictor import Predictor
from lesions.training import checkpoints, epochs, loop
from lesions.training.checkpoints import KEPT_FILES, Checkpoint, code_digest, fingerprint

KEY_METRICS = tuple(key for key, one in metrics_of(DATASET).items() if one.is_key)
TINY: dict[str, Any] = {"image_size": 32, "epochs": 2, "batch_size": 8, "device": "cpu"}


@pytest.fixture
def data(noise: PhotoArray, noise_table: pd.DataFrame) -> loop.TrainingData:
    """21 photos of noise for training, seven for validation."""
    return loop.TrainingData(DATASET, noise, noise_table.iloc[:21], noise_table.iloc[21:])


@pytest.fixture
def without_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count calls, or fail one."""
    monkeypatch.setattr(loop, "dry_run", lambda *_: None)


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint after every epoch."""
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)


def run(
    data: loop.TrainingData,
    params: Params,
    folder: Path,
    name: str = "mobilenetv2",
    keep_checkpoint: bool = False,
    **changes: Any,
) -> loop.Trained:
    small = params.model_copy(update={**TINY, **changes})
    used = hardware.set_up("cpu", small.precision, small.deterministic)
    trained = loop.train(name, data, small, folder / "history.csv", used)
    assert trained is not None
    if not keep_checkpoint:
        trained.checkpoint.remove()  # as the stage does after writing the model
    return trained


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
    assert tuple(trained.metrics) == KEY_METRICS
    best = history["val_weighted_f1"].max()
    assert trained.metrics["weighted_f1"] == pytest.approx(best, abs=1e-4)
    assert trained.card.classes == CODES
    assert trained.card.image_size == 32
    expected = data.photos.images[:21].reshape(-1, 3).mean(axis=0) / 255  # training photos only
    np.testing.assert_allclose(trained.card.mean, expected, atol=1e-6)
    assert trained.card.use(1).temperature != 1
    assert loop.describe(trained).startswith("MobileNetV2: epoch ")


def test_the_best_epochs_weights_are_those_that_were_validated(
    data: loop.TrainingData, params: Params, tmp_path: Path
) -> None:
    trained = run(data, params, tmp_path, epochs=3, precision="fp32")
    network = network_of("mobilenetv2", seed=9)
    network.load_state_dict(trained.state)
    classifier = Classifier(network, trained.card, FP32)
    loader = batches.PhotoLoader(data.photos.images, CPU)
    logits, features = run_inference(classifier, loader, np.arange(21, 28))
    assert trained.subspace.shape == (1 + 10, 1280)
    distances = out_of_distribution.distances(features, trained.subspace)
    threshold = trained.card.use(1).distance_threshold
    assert threshold == pytest.approx(np.quantile(distances, 0.95), abs=1e-5)
    confidence = trained.card.use(1).calibration.probabilities(logits).max(axis=1)
    threshold = trained.card.use(1).confidence_threshold
    assert threshold == pytest.approx(np.quantile(confidence, 0.05), abs=1e-5)
    expected = f1_score(DATASET.labels_of(data.val["dx"]), logits.argmax(1), average="weighted")
    assert trained.metrics["weighted_f1"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("views", [1, 4])
def test_what_is_used_is_exactly_what_was_fitted(
    data: loop.TrainingData, params: Params, tmp_path: Path, views: Views
) -> None:
    # Trained in bf16, whose rounding moves probabilities by up to .16; fitted and used in fp32.
    trained = run(data, params, tmp_path, precision="bf16")
    path = tmp_path / "m.safetensors"
    model_file.save(path, trained.state, trained.subspace, trained.card)
    fitted = trained.card.use(views)
    rows = data.photos.rows(data.val["image_id"])

    # lesions predict, and the demo.
    predictions = Predictor(path, "cpu", "balanced", views).predict(data.photos.images[rows])
    used = np.stack([one.probabilities for one in predictions])
    assert fitted.confidence_threshold == pytest.approx(
        np.quantile(used.max(axis=1), 0.05), abs=1e-6
    )
    assert [one.predicted for one in predictions] == fitted.decide(used, "balanced").tolist()

    # Evaluation.
    loader, model = batches.PhotoLoader(data.photos.images, CPU), model_file.load(path, FP32)
    logits = run_inference(model.classifier, loader, rows, views).logits
    np.testing.assert_allclose(fitted.calibration.probabilities(logits), used, atol=1e-6)

    # Fitting again, from what evaluation computes, changes nothing.
    balance = np.bincount(DATASET.labels_of(data.train["dx"]), minlength=7).astype(float)
    labels, groups = DATASET.labels_of(data.val["dx"]), groups_of(data.val)
    again = fit(logits, np.ones(7), labels, groups, DATASET, balance, views)
    assert again.bias == pytest.approx(fitted.bias, abs=1e-4)
    assert again.temperature == pytest.approx(fitted.temperature, abs=1e-4)
    if views == 1:  # what `lesions compare` reads
        kept = trained.validation[list(CODES)].to_numpy()
        np.testing.assert_allclose(kept, used, atol=2e-6)


def test_a_refitted_head_changes_the_last_layer_alone(
    data: loop.TrainingData, params: Params, tmp_path: Path
) -> None:
    plain = run(data, params, tmp_path)
    refitted = run(data, params, tmp_path, head="refitted")
    changed = {key for key in plain.state if not torch.equal(plain.state[key], refitted.state[key])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
    assert refitted.card.recipe.head == "refitted"


def test_the_last_layer_can_be_fitted_alone(
    data: loop.TrainingData, params: Params, tmp_path: Path
) -> None:
    spec = params.networks["mobilenetv2"].model_copy(update={"fit": "last-layer"})
    networks = {**params.networks, "mobilenetv2": spec}
    trained = run(data, params, tmp_path, networks=networks, epochs=5)
    start = network_of("mobilenetv2", params.seed).state_dict()
    changed = {key for key in start if not torch.equal(start[key], trained.state[key])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
    assert list(trained.history["epoch"]) == [1]
    assert {"train_loss", "val_weighted_f1", "photos_per_second", "best"} <= set(trained.history)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), trained.history)
    # 21 photos have fewer than 1,280 features, so a linear layer can learn them.
    assert trained.history["train_accuracy"][0] > 0.5


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


@pytest.mark.usefixtures("without_dry_run", "every_epoch")
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


@pytest.mark.usefixtures("without_dry_run")
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


def test_a_checkpoint_that_does_not_fit_the_disk_leaves_the_last_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = Checkpoint("mobilenetv2", "0" * 64)
    checkpoint.save({"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        checkpoint.save({"epoch": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoint.load() == {"epoch": 1}
    (file,) = checkpoint.path.parent.iterdir()
    assert file.name == "mobilenetv2-0000000000000000.checkpoint"
    assert "training goes on without checkpoints" in capsys.readouterr().err


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


def test_experiments_have_their_own_checkpoints_and_do_not_overwrite_each_others(
    data: loop.TrainingData, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(data, params, tmp_path, keep_checkpoint=True)
    other = run(data, params, tmp_path, keep_checkpoint=True, lr=0.01)
    assert first.checkpoint.path != other.checkpoint.path
    assert first.checkpoint.path.exists()
    assert "resumes" not in capsys.readouterr().out
    (tmp_path / "history.csv").unlink()  # as DVC does before it starts a stage
    again = run(data, params, tmp_path)
    assert "mobilenetv2: resumes after epoch 2 of 2" in capsys.readouterr().out
    assert list(pd.read_csv(tmp_path / "history.csv")["epoch"]) == [1, 2]
    assert same(first, again)
    assert first.metrics == again.metrics
    assert not first.checkpoint.path.exists()


def test_training_resumes_on_other_hardware_and_says_so(
    data: loop.TrainingData,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "describe_device", lambda device: "NVIDIA T4")
        first = run(data, params, tmp_path, keep_checkpoint=True, precision="fp32")
    monkeypatch.setattr(loop, "describe_device", lambda device: "cpu, 2 threads")
    again = run(data, params, tmp_path, precision="fp32", device="auto", devices=1)
    printed = capsys.readouterr().out
    assert "until then on NVIDIA T4, fp32, now on cpu, 2 threads, fp32; the last bits" in printed
    assert first.card.device == "NVIDIA T4"
    assert again.card.device == "NVIDIA T4, fp32; then cpu, 2 threads, fp32"


def test_only_our_newest_checkpoints_are_kept_and_no_other_file_is_touched() -> None:
    made = [Checkpoint("mobilenetv2", f"{number:016}") for number in range(KEPT_FILES + 3)]
    folder = made[0].path.parent
    folder.mkdir(parents=True)
    others = [folder / f"other_project_{number}.ckpt" for number in range(2 * KEPT_FILES)]
    for number, file in enumerate(others):
        file.write_text("weeks")
        os.utime(file, (number, number))
    (folder / "subfolder").mkdir()
    left = folder / f".{made[0].path.name}.123.partial"  # by a kill
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    for number, checkpoint in enumerate(made):
        checkpoint.save({"epoch": number})
        os.utime(checkpoint.path, (number + 1, number + 1))
    # Its own file stays, even if the others have a later date.
    made[0].save({"epoch": 0})
    os.utime(made[0].path, (0, 0))
    made[0].save({"epoch": 1})
    assert all(file.read_text() == "weeks" for file in others)
    assert (folder / "subfolder").is_dir()
    kept = {file.name for file in folder.glob("*.checkpoint")}
    assert kept == {one.path.name for one in (made[0], *made[4:])}
    assert not left.exists()


def test_checkpoints_are_not_written_more_often_than_needed(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = Checkpoint.save

    def recorded(checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        saved.append(len(state["history"]))
        save(checkpoint, state)

    monkeypatch.setattr(Checkpoint, "save", recorded)
    run(data, params, tmp_path, epochs=4)
    assert saved == [1, 4]  # the first, and the last; the others within INTERVAL


def test_a_cache_that_cannot_be_written_is_named_before_the_first_epoch(
    data: loop.TrainingData,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LESIONS_CACHE", str(tmp_path / "file"))
    trained = run(data, params, tmp_path)
    assert len(trained.history) == 2
    errors = capsys.readouterr().err
    assert errors.count("warning: training goes on without checkpoints") == 1
    assert "LESIONS_CACHE names another folder" in errors


@pytest.mark.parametrize(
    ("torchvision_name", "features", "words"),
    [
        ("shufflenet_v2_x0_5", "fc", "its `features`, fc, makes"),
        ("mnasnet0_5", "layers", "cannot be trained on photos of 32 px in fp32 on cpu"),
        ("googlenet", "inception5b", "other outputs than one value per class"),
        ("alexnet", "features", "cannot be trained on photos of 32 px"),
        ("fcn_resnet50", "backbone", "not a classifier of photos"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_before_the_first_epoch(
    data: loop.TrainingData,
    params: Params,
    tmp_path: Path,
    torchvision_name: str,
    features: str,
    words: str,
) -> None:
    spec = NetworkSpec(title=torchvision_name, torchvision=torchvision_name, features=features)
    with pytest.raises(LesionsError, match=words):
        run_dry(data, params, tmp_path, {"x": spec})
    assert not list(tmp_path.glob(".*"))


def test_the_dry_run_downloads_the_starting_weights(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(_: str, file: str, *__: object, **___: object) -> None:
        torch.save(torchvision.models.mobilenet_v2().state_dict(), file)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    pretrained = params.model_copy(update={"weights": "imagenet"})
    run_dry(data, pretrained, tmp_path, {"x": params.networks["mobilenetv2"]})
    assert len(list(tmp_path.glob("hub/**/mobilenet_v2-*.pth"))) == 1


def run_dry(
    data: loop.TrainingData, params: Params, folder: Path, networks: dict[str, NetworkSpec]
) -> None:
    small = params.model_copy(update={**TINY, "networks": networks})
    loop.dry_run("x", data, small, folder / "history.csv", FP32)


def test_without_a_deterministic_kernel_the_parameter_is_named(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise RuntimeError("adaptive_avg_pool2d_backward_cuda does not have a deterministic ...")

    monkeypatch.setattr(loop, "train_one_epoch", refused)
    with pytest.raises(LesionsError, match="Set deterministic: false"):
        run_dry(data, params, tmp_path, {"x": params.networks["mobilenetv2"]})


def test_fp16_scales_the_loss_and_resumes_with_the_same_bits(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # fp16 takes minutes on a CPU; all but the arithmetic is the same in bf16.
    monkeypatch.setitem(hardware.AUTOCAST, "fp16", torch.bfloat16)
    monkeypatch.setattr(hardware, "pick_precision", lambda *_: "fp16")
    undisturbed = run(data, params, tmp_path, keep_checkpoint=True)
    assert undisturbed.card.precision == "fp16"
    saved = undisturbed.checkpoint.load()
    assert saved is not None
    assert saved["scaler"]["scale"] == 65536
    undisturbed.checkpoint.remove()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "describe_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(data, params, tmp_path)
    resumed = run(data, params, tmp_path)
    assert resumed.checkpoint.path == undisturbed.checkpoint.path
    assert same(undisturbed, resumed)


def stop(*_: Any) -> str:
    raise KeyboardInterrupt


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


@pytest.mark.usefixtures("without_dry_run")
def test_logits_that_are_not_finite_stop_the_run(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Outputs(np.full((7, 7), np.nan, np.float32), np.zeros((7, 1280), np.float32))
    monkeypatch.setattr(epochs, "run_inference", lambda *_: nothing)
    with pytest.raises(LesionsError, match="epoch 1/2: the logits on validation are not finite"):
        run(data, params, tmp_path)


@pytest.mark.usefixtures("without_dry_run", "every_epoch")
@pytest.mark.parametrize(
    ("module", "name"), [(epochs, "augment"), (epochs, "run_inference"), (loop, "run_inference")]
)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_moves_the_photos_off_the_gpu_and_goes_on(
    data: loop.TrainingData,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: ModuleType,
    name: str,
    error: type[RuntimeError],
) -> None:
    undisturbed = run(data, params, tmp_path)
    monkeypatch.setattr(batches, "has_room", lambda images, device: True)
    original, calls = getattr(module, name), []

    def full_in_second_call(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == (1 if module is loop else 2):
            raise error("MPS backend out of memory (MPS allocated: 9 GB)")
        return original(*arguments)

    monkeypatch.setattr(module, name, full_in_second_call)
    assert same(undisturbed, run(data, params, tmp_path))
    printed = capsys.readouterr().out
    assert printed.count("the photos stay in the computer's memory") == 1


@pytest.mark.usefixtures("without_dry_run")
def test_out_of_memory_without_photos_on_the_gpu_is_an_error(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB. GPU 0 has ...")

    monkeypatch.setattr(epochs, "augment", full)
    with pytest.raises(torch.OutOfMemoryError):  # run_cli makes one line of it
        run(data, params, tmp_path)


def test_a_damaged_checkpoint_is_not_used(
    data: loop.TrainingData, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(data, params, tmp_path, keep_checkpoint=True)
    path = first.checkpoint.path
    content = path.read_bytes()
    for damaged in (b"half", content[:-1], _flipped(content)):
        path.write_bytes(damaged)
        assert same(first, run(data, params, tmp_path))
        printed = capsys.readouterr().out
        assert f"{path}.damaged: a damaged checkpoint (" in printed
        assert "training starts again" in printed
        assert Path(f"{path}.damaged").read_bytes() == damaged


def _flipped(content: bytes) -> bytes:
    """Change the lowest bit of a weight, which torch.load would not notice."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_checkpoint_with_weights_that_are_no_numbers_is_not_used() -> None:
    checkpoint = Checkpoint("mobilenetv2", "0" * 64)
    checkpoint.save({"network": {"weight": torch.tensor([1.0, torch.nan])}})
    assert checkpoint.load() is None
    checkpoint.save({"network": {"weight": torch.tensor([1.0])}})
    assert checkpoint.load() == {"network": {"weight": torch.tensor([1.0])}}


@pytest.mark.usefixtures("without_dry_run")
def test_a_loss_that_is_not_finite_stops_the_run(
    data: loop.TrainingData, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infinite(photos: torch.Tensor, *_: Any) -> torch.Tensor:
        return photos.permute(0, 3, 1, 2).float() * np.inf

    monkeypatch.setattr(epochs, "augment", infinite)
    with pytest.raises(LesionsError, match=r"epoch 1/2, batch 1: the loss is nan at lr 0\.001"):
        run(data, params, tmp_path)


@pytest.mark.usefixtures("without_dry_run")
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


def test_a_shortcut_is_planted_on_training_melanomas_only(
    data: loop.TrainingData, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = params.model_copy(update={**TINY, "shortcut": 1.0})
    training = loop.set_up("mobilenetv2", data, planted, FP32, loop.SINGLE_PROCESS)
    loaded = next(training.loader([np.arange(28)])).numpy()
    changed = (loaded != data.photos.images).any(axis=(1, 2, 3))
    assert set(data.train["image_id"][changed[:21]]) == set(
        data.train.loc[data.train["dx"] == "mel", "image_id"]
    )
    assert not changed[21:].any()
    assert "a ruler on 3 training photos of melanoma" in capsys.readouterr().out
    assert training.classifier.card.recipe.shortcut == 1.0
