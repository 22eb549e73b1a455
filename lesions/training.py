"""Training: the whole network, epoch by epoch, validated after each."""

import time
import zlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions import hardware, networks
from lesions.augmentation import augment, draw
from lesions.batches import Batches, cut
from lesions.calibration import fit_temperature
from lesions.checkpoints import Checkpoint, fingerprint
from lesions.diagnoses import CODES, Labels, labels_of
from lesions.errors import LesionsError
from lesions.inference import predict
from lesions.params import Params
from lesions.photos import PhotoArray
from lesions.progress import progress

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


@dataclass
class Trained:
    """What a training leaves behind."""

    state: "dict[str, Tensor]"
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

    Raises:
        LesionsError: a photo is missing, the loss is not finite, or memory runs out.
    """
    import torch

    hardware.compute_deterministically(params.deterministic)
    place = hardware.pick_device(params.device)
    bf16 = hardware.use_bf16(params.precision, place)
    rows, truth = photos.rows(observations["image_id"]), labels_of(observations)
    val_rows, val_truth = photos.rows(val["image_id"]), labels_of(val)
    batches = Batches(photos.images, place)
    mean, std = batches.channel_statistics(np.unique(rows))
    weights = params.starting_weights(name)
    card = networks.ModelCard(
        architecture=name,
        classes=CODES,
        image_size=photos.size,
        mean=mean,
        std=std,
        temperature=1.0,
        weights=weights,
        seed=params.seed,
        precision="bf16" if bf16 else "fp32",
        device=hardware.describe(place),
        versions=networks.versions(),
    )
    network = networks.build(name, weights, params.seed)
    classifier = networks.Classifier(network, card, place, bf16)
    optimizer = torch.optim.Adam(network.parameters(), lr=params.lr, fused=place.type != "mps")
    print(
        f"{name} from {weights} weights: {len(rows)} observations of {len(np.unique(rows))} photos,"
        f" {len(val)} for validation, {card.precision} on {card.device}"
    )
    settings = {**params.model_dump(), **card.model_dump()}
    saved = Checkpoint(checkpoint, lambda: fingerprint(settings, photos, observations, val))
    history: list[dict[str, float]] = []
    kept: dict[str, Any] = {}
    if state := saved.load(place):
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history, kept = state["history"], state["kept"]
        print(f"{name}: goes on after epoch {len(history)} of {params.epochs}")
    for epoch in range(len(history) + 1, params.epochs + 1):
        label = f"{name} epoch {epoch}/{params.epochs}"
        start = time.perf_counter()
        answers = _epoch(label, classifier, optimizer, batches, rows, truth, params, epoch)
        middle = time.perf_counter()
        logits = predict(classifier, batches, val_rows)
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
            snapshot = {key: value.detach().clone() for key, value in network.state_dict().items()}
            kept = {"epoch": epoch, "state": snapshot, "logits": torch.from_numpy(logits)}
        if epoch < params.epochs:
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
    temperature = fit_temperature(kept["logits"].cpu().numpy(), val_truth)
    seconds = sum(line["seconds"] for line in history)
    return Trained(
        state=kept["state"],
        card=card.model_copy(update={"temperature": temperature}),
        history=pd.DataFrame(history),
        metrics={
            "best_epoch": kept["epoch"],
            "val_loss": best["val_loss"],
            "val_weighted_f1": best["val_weighted_f1"],
            "seconds": round(seconds, 1),
            "images_per_second": round(len(rows) * len(history) / seconds, 2),
        },
    )


def _epoch(
    label: str,
    classifier: networks.Classifier,
    optimizer: "Optimizer",
    batches: Batches,
    rows: npt.NDArray[np.int64],
    truth: Labels,
    params: Params,
    epoch: int,
) -> tuple[float, Labels, Labels]:
    """Take one step a batch; all that is random is drawn before the first one.

    Returns:
        Mean loss of the observations as they were met, the answers given, and the truth,
        both (n,) int64 in the order met.
    """
    import torch
    import torch.nn.functional as F

    key = [params.seed, zlib.crc32(classifier.card.architecture.encode()), epoch]
    rng = np.random.default_rng(key)
    order = rng.permutation(len(rows))
    draws = torch.from_numpy(draw(len(rows), params.augment, rng)).to(classifier.place)
    torch.manual_seed(int(rng.integers(2**63)))  # dropout knows no other generator
    parts = cut(order, params.batch_size)
    sizes = [len(part) for part in parts]
    targets = torch.from_numpy(truth[order]).to(classifier.place)
    losses: list[Tensor] = []
    answers: list[Tensor] = []
    classifier.network.train()
    try:
        with progress(len(rows), "photos", label) as bar:
            for photos, target, change in zip(
                batches([rows[part] for part in parts]),
                targets.split(sizes),
                draws.split(sizes),
                strict=True,
            ):
                logits = classifier.logits(augment(photos, change, params.augment))
                loss = F.cross_entropy(logits, target)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                answers.append(logits.detach().argmax(1))
                if bar.update(len(photos)):  # shown now: the only moment that waits for a GPU
                    bar.set_postfix_str(f"loss {_finite(label, losses, params.lr)[-1]:.3f}", False)
    except torch.OutOfMemoryError as error:
        raise LesionsError(
            f"{label}: out of GPU memory at batch_size {params.batch_size} and image_size "
            f"{classifier.card.image_size}. Lower one of them."
        ) from error
    by_batch = _finite(label, losses, params.lr)
    mean_loss = float(np.average(by_batch, weights=sizes))
    return mean_loss, torch.cat(answers).cpu().numpy(), truth[order]


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
