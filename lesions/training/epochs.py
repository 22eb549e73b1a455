"""One epoch: a training step for every batch, then a validation."""

import math
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from lesions.common.errors import LesionsError
from lesions.common.params import Params
from lesions.common.progress import progress
from lesions.common.types import Labels, Rows
from lesions.networks.augmentation import augment, random_changes
from lesions.networks.batches import PhotoLoader, split_into_batches
from lesions.networks.classifier import Classifier
from lesions.networks.inference import run_inference
from lesions.scoring import metrics
from lesions.scoring.calibration import cross_entropy
from lesions.training.processes import Processes


class LabelledRows(NamedTuple):
    """Which photos, and their classes."""

    rows: Rows  # (n,) rows of the array of photos; a photo may occur many times
    labels: Labels  # (n,)


@dataclass(frozen=True)
class Training:
    """What all epochs of one training run share."""

    model: str
    params: Params
    processes: Processes
    loader: PhotoLoader
    train: LabelledRows
    val: LabelledRows
    train_groups: "pd.Series[str]"  # the lesion or patient of each row of `train`
    val_photos: pd.DataFrame  # image_id, lesion_id, dx and more of each row of `val`
    classifier: Classifier  # for validation: the network alone, in fp32, as it will be used
    parallel: Classifier  # the same network, with gradients averaged over all processes
    optimizer: Optimizer
    scaler: GradScaler  # keeps fp16 gradients from vanishing; does nothing in other precisions

    def label(self, epoch: int) -> str:
        """Name an epoch in messages."""
        return f"{self.model} epoch {epoch}/{self.params.epochs}"


class EpochResult(NamedTuple):
    """How well the network did on n observations."""

    loss: float  # mean cross-entropy
    predicted: Labels  # (n,)
    labels: Labels  # (n,)
    classes: int

    def metrics(self, prefix: str) -> dict[str, float]:
        """Compute the columns of history.csv: loss, accuracy and weighted F1."""
        weights = np.ones((1, len(self.labels)))
        confusion = metrics.confusion_matrices(self.predicted, self.labels, weights, self.classes)
        return {
            f"{prefix}_loss": round(self.loss, 6),
            f"{prefix}_accuracy": round(float(metrics.accuracy(confusion)[0]), 6),
            f"{prefix}_weighted_f1": round(float(metrics.weighted_f1(confusion)[0]), 6),
        }


class EpochPlan(NamedTuple):
    """The order and augmentation of one epoch, drawn in advance: this process's part."""

    step_sizes: list[int]  # observations of each step, over all processes
    rows: list[Rows]  # of each step, which photos this process loads
    labels: tuple[Tensor, ...]  # of each step, (b,) int64 on the device
    changes: tuple[Tensor, ...]  # of each step, (b, 7) float32 on the device


def plan_epoch(training: Training, epoch: int) -> EpochPlan:
    """Draw the order of the observations and their random changes; seed dropout.

    All three depend on (seed, model, epoch) alone, so a training run that resumes from its
    checkpoint ends like one that was never interrupted.
    """
    params, processes, data = training.params, training.processes, training.train
    model_number = zlib.crc32(training.model.encode())  # the name as a number
    rng = np.random.default_rng([params.seed, model_number, epoch])
    order = rng.permutation(len(data.rows))
    changes = random_changes(len(data.rows), params.augment, rng)
    torch.manual_seed(int(rng.integers(2**63)) + processes.rank)  # dropout has no other generator

    # Each step takes the next batch of the order; each process takes its shard of every batch.
    positions = np.arange(len(data.rows))
    steps = split_into_batches(positions, params.batch_size, 2 * processes.world_size)
    shards = [processes.shard(step) for step in steps]
    sizes, own_positions = [len(shard) for shard in shards], np.concatenate(shards)
    device = training.classifier.device
    return EpochPlan(
        step_sizes=[len(step) for step in steps],
        rows=[data.rows[order[shard]] for shard in shards],
        labels=torch.from_numpy(data.labels[order[own_positions]]).to(device).split(sizes),
        changes=torch.from_numpy(changes[own_positions]).to(device).split(sizes),
    )


def train_one_epoch(training: Training, epoch: int) -> EpochResult:
    """Train the network on every observation once, one step per batch.

    Returns:
        The mean loss at the time of each step, and the predictions then, of all processes.

    Raises:
        LesionsError: a loss is not finite.
    """
    params, processes, optimizer = training.params, training.processes, training.optimizer
    parallel, scaler, label = training.parallel, training.scaler, training.label(epoch)
    plan = plan_epoch(training, epoch)
    losses: list[Tensor] = []
    predicted: list[Tensor] = []
    parallel.network.train()
    with progress(len(training.train.rows), "photos", label) as bar:
        steps = zip(
            plan.step_sizes,
            training.loader(plan.rows),
            plan.labels,
            plan.changes,
            strict=True,
        )
        for number, (size, photos, labels, changes) in enumerate(steps):
            # Forward. Each process divides its summed loss by the mean size of a shard: the
            # mean over the processes, which their gradients get, is the batch's mean loss.
            logits = parallel.logits(augment(photos, changes, params.augment))
            mean_shard = size / processes.world_size
            loss = F.cross_entropy(logits, labels, reduction="sum") / mean_shard
            # Backward.
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            # Update.
            rate = learning_rate(params, epoch - 1 + number / len(plan.rows))
            for group in optimizer.param_groups:
                group["lr"] = rate
            scaler.step(optimizer)
            scaler.update()
            # Record. Nothing waits for the GPU until the progress bar is drawn again.
            losses.append(loss.detach())
            predicted.append(logits.detach().argmax(1))
            if bar.update(size):
                bar.set_postfix_str(f"loss {_fetch(losses, label, params)[-1]:.3f}", False)
    mean_loss = np.average(_fetch(losses, label, params), weights=plan.step_sizes)
    return EpochResult(
        float(processes.all_gather(np.array([mean_loss])).mean()),
        processes.all_gather(torch.cat(predicted).cpu().numpy()),
        processes.all_gather(torch.cat(plan.labels).cpu().numpy()),
        len(training.classifier.card.classes),
    )


def learning_rate(params: Params, epochs: float) -> float:
    """Compute the learning rate after `epochs` epochs, from 0 to below `params.epochs`.

    Constant, or along half a cosine to 0 (Loshchilov and Hutter 2017, arXiv 1608.03983).
    """
    if params.schedule == "constant":
        return params.lr
    return params.lr * (1 + math.cos(math.pi * epochs / params.epochs)) / 2


def _fetch(losses: list[Tensor], label: str, params: Params) -> npt.NDArray[np.float64]:
    """Fetch the losses so far from the device; stop at the first that is not finite."""
    values = torch.stack(losses).cpu().numpy().astype(np.float64)
    if not np.isfinite(values).all():
        batch = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise LesionsError(
            f"{label}, batch {batch}: the loss is {values[batch - 1]} at lr {params.lr:g}. "
            "Try a lower lr, a larger batch_size, or precision: fp32."
        )
    return values


def validate(training: Training, epoch: int) -> EpochResult:
    """Run the network on the validation photos, in fp32; each process takes its shard.

    Raises:
        LesionsError: a logit is not finite.
    """
    processes, data = training.processes, training.val
    processes.broadcast_buffers(training.classifier.network)
    shard = processes.shard(data.rows)
    logits = processes.all_gather(run_inference(training.classifier, training.loader, shard).logits)
    if not np.isfinite(logits).all():
        raise LesionsError(
            f"{training.label(epoch)}: the logits on validation are not finite at lr "
            f"{training.params.lr:g}. Try a lower lr, or precision: fp32."
        )
    loss = cross_entropy(logits, data.labels)
    predicted = np.asarray(logits.argmax(axis=1))
    return EpochResult(loss, predicted, data.labels, logits.shape[1])
