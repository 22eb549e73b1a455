"""The training loop: set up, resume, train and validate epoch by epoch, calibrate."""

import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.common.params import Params
from lesions.dataset.diagnoses import CODES, labels_of
from lesions.dataset.photos import PhotoArray
from lesions.networks import architectures, hardware, key_metrics, out_of_distribution
from lesions.networks.batches import PhotoLoader, channel_statistics
from lesions.networks.calibration import fit_temperature
from lesions.networks.classifier import Classifier
from lesions.networks.inference import run_inference
from lesions.networks.model_card import ModelCard, versions
from lesions.training.checkpoints import Checkpoint, code_digest, fingerprint
from lesions.training.epochs import LabelledRows, Training, train_one_epoch, validate
from lesions.training.processes import Processes

FLAGGED = 0.05  # share of the validation photos that each threshold of the model card flags
# Stored in the model card.
RECIPE = {"source", "lr", "schedule", "batch_size", "epochs", "keep", "augment"}
# All parameters that training reads, besides the network's own entry in `networks`.
SETTINGS = RECIPE | {"weights", "seed", "precision", "device", "devices", "deterministic"}
SINGLE_PROCESS = Processes()


class TrainingData(NamedTuple):
    """What a network is trained on."""

    photos: PhotoArray
    train: pd.DataFrame  # the balanced observations: image_id, dx; a photo may occur many times
    val: pd.DataFrame  # the validation photos: image_id, dx


class Files(NamedTuple):
    """The files that are written during training."""

    history: Path  # one row per epoch, rewritten after each
    checkpoint: Path  # what an interrupted training resumes from


@dataclass
class BestEpoch:
    """The epoch whose weights are used, so far."""

    epoch: int
    state: dict[str, Tensor]
    logits: Tensor  # (n, classes) of the validation photos


@dataclass(frozen=True)
class Trained:
    """The result of a training run."""

    state: dict[str, Tensor]
    subspace: npt.NDArray[np.float32]  # see `out_of_distribution`
    card: ModelCard
    history: pd.DataFrame  # one row per epoch
    metrics: dict[str, float]  # the key metrics on the validation photos


def train(
    model: str,
    data: TrainingData,
    params: Params,
    files: Files,
    processes: Processes = SINGLE_PROCESS,
) -> Trained:
    """Fine-tune a network and choose the best of its epochs.

    Args:
        model: its name in the table of networks.
        data: photos and their diagnoses.
        params: all parameters.
        files: to write while training.
        processes: which share the work, each with its own device; all return the same.

    Raises:
        LesionsError: a photo is missing, the loss is not finite, or the GPU is out of memory.
    """
    training = set_up(model, data, params, processes)
    card = training.classifier.card

    # Resume from the checkpoint of an interrupted training, if there is one.
    settings = {**params.model_dump(include=SETTINGS), **card.model_dump(), "code": code_digest()}
    checkpoint = Checkpoint(
        files.checkpoint, lambda: fingerprint(settings, data.photos, data.train, data.val)
    )
    history, best = resume(training, checkpoint)

    for epoch in range(len(history) + 1, params.epochs + 1):
        # Train, then validate.
        start = time.perf_counter()
        train_result = train_one_epoch(training, epoch)
        seconds_training = time.perf_counter() - start
        val_result, val_logits = validate(training, epoch)
        history.append(
            {
                "epoch": epoch,
                **train_result.metrics("train"),
                **val_result.metrics("val"),
                "seconds": round(time.perf_counter() - start, 2),
                "photos_per_second": round(len(training.train.rows) / seconds_training, 2),
            }
        )
        # Keep a copy of the best epoch's weights.
        if best is None or params.keep == "last" or _improved(history, best):
            state = training.classifier.network.state_dict()
            copy = {key: value.detach().clone() for key, value in state.items()}
            best = BestEpoch(epoch, copy, torch.from_numpy(val_logits))
        # Write the history and the checkpoint.
        if processes.is_main:
            write_csv(files.history, history_table(training, history, best))
            if epoch < params.epochs:
                save_checkpoint(training, checkpoint, history, best)
        print(describe_epoch(training, history), flush=True)

    assert best is not None
    return finish(training, history, best)


def set_up(model: str, data: TrainingData, params: Params, processes: Processes) -> Training:
    """Prepare all that the epochs share: device, photos, network, optimizer.

    Raises:
        LesionsError: a photo is missing, or the batch size does not suit the processes.
    """
    # The device.
    check_batch_size(params.batch_size, processes.world_size)
    hardware.compute_deterministically(params.deterministic)
    device = hardware.pick_device(params.device)
    bf16 = hardware.use_bf16(params.precision, device)

    # The photos.
    train_rows = data.photos.rows(data.train["image_id"])
    val_rows = data.photos.rows(data.val["image_id"])
    loader = PhotoLoader(data.photos.images, device)
    mean, std = channel_statistics(loader, np.unique(train_rows))

    # The network.
    entry, weights = params.network(model), params.starting_weights(model)
    network = architectures.build(entry, len(CODES), weights, params.seed)
    used = versions()
    if weights == "imagenet":
        used["ImageNet weights"] = architectures.imagenet_weights_hash(entry)
    card = ModelCard(
        name=model,
        network=entry,
        classes=CODES,
        image_size=data.photos.size,
        mean=mean,
        std=std,
        temperature=1.0,
        confidence_threshold=0.0,
        distance_threshold=0.0,
        weights=weights,
        seed=params.seed,
        recipe=params.model_dump(include=RECIPE),
        observations={code: int((data.train["dx"] == code).sum()) for code in CODES},
        precision="bf16" if bf16 else "fp32",
        device=_device_name(device, processes),
        versions=used,
    )
    classifier = Classifier(network, card, device, bf16)
    parallel = Classifier(processes.parallelise(network, device), card, device, bf16)

    # The optimizer; train_one_epoch sets the learning rate before every step.
    optimizer = torch.optim.Adam(network.parameters(), lr=params.lr, fused=device.type != "mps")
    print(
        f"{model} from {weights} weights: {len(train_rows)} observations of "
        f"{len(np.unique(train_rows))} photos, {len(val_rows)} validation photos, "
        f"{card.precision} on {card.device}"
    )
    return Training(
        model=model,
        params=params,
        processes=processes,
        loader=loader,
        train=LabelledRows(train_rows, labels_of(data.train)),
        val=LabelledRows(val_rows, labels_of(data.val)),
        classifier=classifier,
        parallel=parallel,
        optimizer=optimizer,
    )


def check_batch_size(batch_size: int, processes: int) -> None:
    """Refuse a batch that the processes cannot share equally, at least two photos each."""
    if batch_size % processes or batch_size < 2 * processes:
        raise LesionsError(
            f"batch_size {batch_size} cannot be shared by {processes} devices, at least two photos "
            f"each: make it a multiple of {processes}, {2 * processes} or more, or change devices."
        )


def _device_name(device: torch.device, processes: Processes) -> str:
    name, count = hardware.describe(device), processes.world_size
    return name if count == 1 else f"{count} × {name}"


def resume(
    training: Training, checkpoint: Checkpoint
) -> tuple[list[dict[str, float]], BestEpoch | None]:
    """Load the checkpoint into network and optimizer.

    Returns:
        The history and the best epoch so far; empty and None where there is no checkpoint.
    """
    processes = training.processes
    saved = processes.broadcast(checkpoint.load() if processes.is_main else None)
    if saved is None:
        return [], None
    training.classifier.network.load_state_dict(saved["network"])
    training.optimizer.load_state_dict(saved["optimizer"])
    history: list[dict[str, float]] = saved["history"]
    print(f"{training.model}: resumes after epoch {len(history)} of {training.params.epochs}")
    return history, BestEpoch(**saved["best"])


def save_checkpoint(
    training: Training,
    checkpoint: Checkpoint,
    history: list[dict[str, float]],
    best: BestEpoch,
) -> None:
    """Write all that `resume` needs."""
    state: dict[str, Any] = {
        "network": training.classifier.network.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "history": history,
        "best": vars(best),
    }
    checkpoint.save(state)


def _improved(history: list[dict[str, float]], best: BestEpoch) -> bool:
    """Say whether the last epoch has a higher weighted F1 on validation than the best so far."""
    return history[-1]["val_weighted_f1"] > history[best.epoch - 1]["val_weighted_f1"]


def history_table(
    training: Training, history: list[dict[str, float]], best: BestEpoch
) -> pd.DataFrame:
    """Make the table of history.csv: one row per epoch; `best` is 1 for the epoch that is used."""
    table = pd.DataFrame(history)
    table.insert(0, "model", training.classifier.card.network.title)
    return table.assign(best=(table["epoch"] == best.epoch).astype(int))


def describe_epoch(training: Training, history: list[dict[str, float]]) -> str:
    """Say in one line how the last epoch went."""
    last = history[-1]
    epochs_left = training.params.epochs - len(history)
    left = timedelta(seconds=round(last["seconds"] * epochs_left))
    return (
        f"{training.label(len(history))}: loss {last['train_loss']:.3f}, on validation "
        f"{last['val_loss']:.3f}, accuracy {last['val_accuracy']:.3f}, weighted F1 "
        f"{last['val_weighted_f1']:.3f}; {last['photos_per_second']:.1f} photos/s"
        + (f", {left} left" if epochs_left else "")
    )


def finish(training: Training, history: list[dict[str, float]], best: BestEpoch) -> Trained:
    """Go back to the best epoch, calibrate it on validation and describe its features."""
    classifier, val = training.classifier, training.val
    classifier.network.load_state_dict(best.state)

    # Calibrate the probabilities on validation.
    logits = best.logits.cpu().numpy()
    temperature = fit_temperature(logits, val.labels)
    probabilities = classifier.probabilities(logits, temperature)
    confidence = probabilities.max(axis=1)

    # Find the subspace that the features of the training photos lie in.
    photos = np.unique(training.train.rows)
    count = min(len(photos), out_of_distribution.MAX_PHOTOS)
    chosen = photos[np.linspace(0, len(photos) - 1, count).astype(int)]
    features = run_inference(classifier, training.loader, chosen).features
    subspace = out_of_distribution.fit_subspace(features)
    val_features = run_inference(classifier, training.loader, val.rows).features
    distances = out_of_distribution.distances(val_features, subspace)

    # The thresholds flag the least confident and the farthest 5 % of the validation photos.
    fitted = {
        "temperature": temperature,
        "confidence_threshold": round(float(np.quantile(confidence, FLAGGED)), 6),
        "distance_threshold": round(float(np.quantile(distances, 1 - FLAGGED)), 6),
    }
    return Trained(
        state=best.state,
        subspace=subspace,
        card=classifier.card.model_copy(update=fitted),
        history=history_table(training, history, best),
        metrics=key_metrics.rounded_key_metrics(probabilities, val.labels),
    )


def describe(trained: Trained) -> str:
    """Say in one line what came out of training."""
    history, metrics = trained.history, trained.metrics
    best = history.loc[history["best"] == 1, "epoch"].iloc[0]
    return (
        f"{trained.card.network.title}: epoch {best} of {len(history)} is used, validation "
        f"weighted F1 {metrics['weighted_f1']:.3f}, balanced accuracy "
        f"{metrics['balanced_accuracy']:.3f}; trained in "
        f"{timedelta(seconds=round(history['seconds'].sum()))}"
    )
