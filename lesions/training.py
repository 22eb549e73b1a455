"""Training: the whole network, epoch by epoch, validated after each."""

import math
import time
import zlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions import hardware, networks
from lesions.augmentation import augment, draw
from lesions.batches import Batches, cut
from lesions.calibration import fit_temperature
from lesions.checkpoints import Checkpoint, code, fingerprint
from lesions.diagnoses import CODES, Labels, labels_of
from lesions.errors import LesionsError
from lesions.inference import predict
from lesions.params import Params
from lesions.photos import PhotoArray
from lesions.processes import Processes
from lesions.progress import progress

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

MARKED = 0.05  # share of validation photos that `ModelCard.doubt` marks, and `strange`
# Of `Classifier.subspace`, at most: directions (128 mark hardly more strange pictures), photos.
DIRECTIONS, LOOKED_AT = 32, 2048
RECIPE = {  # told by the model file
    "source",
    "lr",
    "schedule",
    "batch_size",
    "epochs",
    "keep",
    "augment",
}
# What a checkpoint must have been made with, beside the data: the parameters of these stages.
SETTINGS = RECIPE | {"weights", "seed", "precision", "device", "devices", "deterministic"}
ALONE = Processes()


@dataclass
class Trained:
    """What a training leaves behind."""

    state: "dict[str, Tensor]"
    subspace: npt.NDArray[np.float32]  # see `networks.Classifier`
    card: networks.ModelCard
    history: pd.DataFrame  # a row an epoch
    metrics: dict[str, float]


def train(
    name: str,
    photos: PhotoArray,
    observations: pd.DataFrame,
    val: pd.DataFrame,
    params: Params,
    checkpoint: Path,
    processes: Processes = ALONE,
) -> Trained:
    """Fine-tune a network and keep one epoch of it.

    Order, augmentation and dropout of an epoch depend on (seed, name, epoch) alone: a training
    that goes on from its checkpoint ends like one that was never interrupted.

    Args:
        name: of the network, a key of `networks.ARCHITECTURES`.
        photos: all photos, scaled.
        observations: the balanced training manifest; a photo may stand in it many times.
        val: the validation manifest.
        params: the study's parameters.
        checkpoint: file to go on from and to keep up to date until the training is done.
        processes: that share the work, each with a device of its own; all return the same.

    Raises:
        LesionsError: a photo is missing, the loss is not finite, or a training step runs out of
            GPU memory.
    """
    import torch

    check_batch(params.batch_size, processes.count)
    hardware.compute_deterministically(params.deterministic)
    place = hardware.pick_device(params.device)
    bf16 = hardware.use_bf16(params.precision, place)
    rows, truth = photos.rows(observations["image_id"]), labels_of(observations)
    val_rows, val_truth = photos.rows(val["image_id"]), labels_of(val)
    batches = Batches(photos.images, place)
    mean, std = batches.channel_statistics(np.unique(rows))
    weights = params.starting_weights(name)
    network = networks.build(name, weights, params.seed)
    versions = networks.versions()
    if weights == "imagenet":
        versions["ImageNet weights"] = networks.weights_digest(name)
    card = networks.ModelCard(
        architecture=name,
        classes=CODES,
        image_size=photos.size,
        mean=mean,
        std=std,
        temperature=1.0,
        doubt=0.0,
        strange=0.0,
        weights=weights,
        seed=params.seed,
        recipe=params.model_dump(include=RECIPE),
        observations={code: int((observations["dx"] == code).sum()) for code in CODES},
        precision="bf16" if bf16 else "fp32",
        device=f"{processes.count} × " * (processes.count > 1) + hardware.describe(place),
        versions=versions,
    )
    classifier = networks.Classifier(network, card, place, bf16)
    learner = networks.Classifier(processes.wrap(network, place), card, place, bf16)
    optimizer = torch.optim.Adam(network.parameters(), lr=params.lr, fused=place.type != "mps")
    print(
        f"{name} from {weights} weights: {len(rows)} observations of {len(np.unique(rows))} photos,"
        f" {len(val)} for validation, {card.precision} on {card.device}"
    )
    settings = {**params.model_dump(include=SETTINGS), **card.model_dump(), "code": code()}
    saved = Checkpoint(checkpoint, lambda: fingerprint(settings, photos, observations, val))
    history: list[dict[str, float]] = []
    kept: dict[str, Any] = {}
    if state := processes.told(saved.load() if processes.first else None):
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history, kept = state["history"], state["kept"]
        print(f"{name}: goes on after epoch {len(history)} of {params.epochs}")
    for epoch in range(len(history) + 1, params.epochs + 1):
        label = f"{name} epoch {epoch}/{params.epochs}"
        start = time.perf_counter()
        answers = train_epoch(
            label, learner, optimizer, batches, rows, truth, params, epoch, processes
        )
        middle = time.perf_counter()
        processes.agree(network)
        logits = processes.gathered(predict(classifier, batches, processes.part(val_rows)).logits)
        if not np.isfinite(logits).all():
            raise LesionsError(
                f"{label}: the network's answers on validation are no numbers at lr "
                f"{params.lr:g}. Try a lower lr, or precision: fp32."
            )
        line = {
            "epoch": epoch,
            **_figures("train", *answers),
            **_figures("val", _cross_entropy(logits, val_truth), logits.argmax(1), val_truth),
            "seconds": round(time.perf_counter() - start, 2),
            "images_per_second": round(len(rows) / (middle - start), 2),
        }
        history.append(line)
        if (
            not kept
            or params.keep == "last"
            or line["val_weighted_f1"] > history[kept["epoch"] - 1]["val_weighted_f1"]
        ):
            state = network.state_dict()
            snapshot = {key: value.detach().clone() for key, value in state.items()}
            kept = {"epoch": epoch, "state": snapshot, "logits": torch.from_numpy(logits)}
        if epoch < params.epochs and processes.first:
            saved.save(
                {
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "history": history,
                    "kept": kept,
                }
            )
        left = timedelta(seconds=round(line["seconds"] * (params.epochs - epoch)))
        print(
            f"{label}: loss {line['train_loss']:.3f} (val {line['val_loss']:.3f}), accuracy "
            f"{line['train_accuracy']:.3f} (val {line['val_accuracy']:.3f}), weighted F1 "
            f"{line['train_weighted_f1']:.3f} (val {line['val_weighted_f1']:.3f}), "
            f"{line['images_per_second']:.1f} photos/s, {left} left",
            flush=True,
        )
    best = history[kept["epoch"] - 1]
    logits = kept["logits"].cpu().numpy()
    temperature = fit_temperature(logits, val_truth)
    sure = classifier.probabilities(logits, temperature).max(axis=1)
    network.load_state_dict(kept["state"])
    classifier.subspace = _subspace(classifier, batches, rows)
    distances = classifier.distances(predict(classifier, batches, val_rows).features)
    seconds = sum(line["seconds"] for line in history)
    return Trained(
        state=kept["state"],
        subspace=classifier.subspace,
        card=card.model_copy(
            update={
                "temperature": temperature,
                "doubt": round(float(np.quantile(sure, MARKED)), 6),
                "strange": round(float(np.quantile(distances, 1 - MARKED)), 6),
            }
        ),
        history=pd.DataFrame(history),
        metrics={
            "best_epoch": kept["epoch"],
            "val_loss": best["val_loss"],
            "val_weighted_f1": best["val_weighted_f1"],
            "seconds": round(seconds, 1),
            "images_per_second": round(
                harmonic_mean(line["images_per_second"] for line in history), 2
            ),
        },
    )


def check_batch(batch_size: int, count: int) -> None:
    """Refuse a batch that processes cannot share equally, two photos each at least."""
    if batch_size % count or batch_size < 2 * count:
        raise LesionsError(
            f"batch_size {batch_size} cannot be shared by {count} devices, at least two photos "
            f"each: make it a multiple of {count}, {2 * count} or more, or change devices."
        )


def train_epoch(
    label: str,
    classifier: networks.Classifier,
    optimizer: "Optimizer",
    batches: Batches,
    rows: npt.NDArray[np.int64],
    truth: Labels,
    params: Params,
    epoch: int,
    processes: Processes = ALONE,
) -> tuple[float, Labels, Labels]:
    """Take one step a batch; all that is random is drawn before the first one.

    Returns:
        Mean loss of the observations as they were met, the answers given, and the truth,
        both (n,) int64, of all processes.
    """
    import torch
    import torch.nn.functional as F

    key = [params.seed, zlib.crc32(classifier.card.architecture.encode()), epoch]
    rng = np.random.default_rng(key)
    order = rng.permutation(len(rows))
    draws = draw(len(rows), params.augment, rng)
    # Dropout knows no other generator.
    torch.manual_seed(int(rng.integers(2**63)) + processes.rank)
    steps = cut(np.arange(len(rows)), params.batch_size, 2 * processes.count)
    parts = [processes.part(step) for step in steps]  # places in `order`
    sizes, met = [len(part) for part in parts], np.concatenate(parts)
    changes = torch.from_numpy(draws[met]).to(classifier.place)
    targets = torch.from_numpy(truth[order[met]]).to(classifier.place)
    losses: list[Tensor] = []
    answers: list[Tensor] = []
    classifier.network.train()
    try:
        with progress(len(rows), "photos", label) as bar:
            fed = zip(
                steps,
                batches([rows[order[part]] for part in parts]),
                targets.split(sizes),
                changes.split(sizes),
                strict=True,
            )
            for number, (step, photos, target, change) in enumerate(fed):
                logits = classifier.logits(augment(photos, change, params.augment))
                # The mean of the processes' gradients is that of the whole batch's mean loss.
                share = len(step) / processes.count
                loss = F.cross_entropy(logits, target, reduction="sum") / share
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                rate = learning_rate(params, epoch - 1 + number / len(steps))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
                losses.append(loss.detach())
                answers.append(logits.detach().argmax(1))
                if bar.update(len(step)):  # shown now: the only moment that waits for a GPU
                    bar.set_postfix_str(f"loss {_finite(label, losses, params.lr)[-1]:.3f}", False)
    except torch.OutOfMemoryError as error:
        raise LesionsError(
            f"{label}: out of GPU memory at batch_size {params.batch_size} and image_size "
            f"{classifier.card.image_size}. Lower one of them."
        ) from error
    by_batch = _finite(label, losses, params.lr)
    mean_loss = np.array([np.average(by_batch, weights=[len(step) for step in steps])])
    return (
        float(processes.gathered(mean_loss).mean()),
        processes.gathered(torch.cat(answers).cpu().numpy()),
        processes.gathered(truth[order[met]]),
    )


def learning_rate(params: Params, epochs: float) -> float:
    """Give the learning rate after so many epochs, from 0 to below `params.epochs`.

    Constant, or along half a cosine to 0 (Loshchilov and Hutter 2017, arXiv 1608.03983).
    """
    if params.schedule == "constant":
        return params.lr
    return params.lr * (1 + math.cos(math.pi * epochs / params.epochs)) / 2


def _subspace(
    classifier: networks.Classifier, batches: Batches, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Find where the features of the training photos lie: (1 + d, f), see `Classifier`."""
    photos = np.unique(rows)
    seen = photos[np.linspace(0, len(photos) - 1, min(len(photos), LOOKED_AT)).astype(int)]
    features = predict(classifier, batches, seen).features
    mean = features.mean(axis=0)
    directions = np.linalg.svd(features - mean, full_matrices=False)[2]
    return np.vstack([mean, directions[: min(DIRECTIONS, len(seen) // 2)]])


def _finite(label: str, losses: "list[Tensor]", lr: float) -> npt.NDArray[np.float64]:
    """Fetch the losses so far; stop the run at the first that is no number."""
    import torch

    values = torch.stack(losses).cpu().numpy().astype(np.float64)
    if not np.isfinite(values).all():
        batch = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise LesionsError(
            f"{label}, batch {batch}: the loss is {values[batch - 1]} at lr {lr:g}. "
            "Try a lower lr, a larger batch_size, or precision: fp32."
        )
    return values


def _cross_entropy(logits: npt.NDArray[np.float32], truth: Labels) -> float:
    from scipy.special import log_softmax

    chosen = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(truth)), truth]
    return float(-chosen.mean())


def _figures(side: str, loss: float, answers: Labels, truth: Labels) -> dict[str, float]:
    from sklearn.metrics import f1_score

    return {
        f"{side}_loss": round(loss, 6),
        f"{side}_accuracy": round(float((answers == truth).mean()), 6),
        f"{side}_weighted_f1": round(float(f1_score(truth, answers, average="weighted")), 6),
    }
