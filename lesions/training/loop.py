"""The training loop: set up, resume, train and validate epoch by epoch, calibrate.

The published recipe, ten epochs of 35,337 observations at 224 px, is meant for a GPU. On one core
of an AMD EPYC, ten epochs of 13,024 observations at 192 px take MobileNetV2 about 90 minutes, and
reach an accuracy of .92 on test photos (docs/results.md).
"""

import contextlib
import gc
import io
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError, is_out_of_memory
from lesions.common.params import NetworkSpec, Params, TrainingParams, Views
from lesions.common.types import Features, Floats, Pixels
from lesions.dataset import shortcut
from lesions.dataset.description import Description
from lesions.dataset.metadata import group_column, groups_of
from lesions.dataset.photos import PhotoArray
from lesions.networks import architectures, model_file
from lesions.networks.batches import PhotoLoader, channel_statistics
from lesions.networks.classifier import Classifier
from lesions.networks.hardware import Hardware, describe_device
from lesions.networks.inference import run_inference
from lesions.networks.model_card import ModelCard, versions
from lesions.scoring import out_of_distribution
from lesions.scoring.calibration import cross_entropy
from lesions.scoring.fitted import fit
from lesions.scoring.metrics import rounded_key_metrics
from lesions.training import last_layer
from lesions.training.checkpoints import Checkpoint, code_digest, fingerprint
from lesions.training.epochs import EpochResult, LabelledRows, Training, train_one_epoch, validate
from lesions.training.processes import Processes

# Parameters that do not change what is trained: a run can resume on another machine.
HARDWARE_PARAMS = {"device", "devices", "deterministic"}
SINGLE_PROCESS = Processes()


class TrainingData(NamedTuple):
    """What a network is trained on."""

    dataset: Description
    photos: PhotoArray
    train: pd.DataFrame  # the balanced observations: image_id, dx; a photo may occur many times
    val: pd.DataFrame  # the validation photos: image_id, lesion_id, dx


@dataclass
class BestEpoch:
    """The epoch whose weights are used, so far."""

    epoch: int
    state: dict[str, Tensor]


@dataclass
class TrainingState:
    """How far a training run has come: what `resume` finds and `save_checkpoint` keeps."""

    history: list[dict[str, float]]  # one row per epoch
    best: BestEpoch | None
    hardware: list[str]  # on which it has run, in order


@dataclass(frozen=True)
class Trained:
    """The result of a training run."""

    state: dict[str, Tensor]
    subspace: Features  # see `out_of_distribution`
    card: ModelCard
    history: pd.DataFrame  # one row per epoch
    metrics: dict[str, float]  # the key metrics on the validation photos
    validation: pd.DataFrame  # one row per validation photo, see `validation_table`
    checkpoint: Checkpoint  # to be removed when the model is written


def train(
    model: str,
    data: TrainingData,
    params: Params,
    history: Path,
    hardware: Hardware,
    processes: Processes = SINGLE_PROCESS,
) -> Trained | None:
    """Fine-tune a network and choose the best of its epochs.

    Args:
        model: its name in the table of networks.
        data: photos and their classes.
        params: all parameters.
        history: the file to write after every epoch: one row per epoch.
        hardware: from `hardware.set_up`.
        processes: which share the work, each with its own device.

    Returns:
        The result; None in all processes but the main one.

    Raises:
        LesionsError: a photo is missing, or the loss is not finite.
    """
    if processes.is_main:
        dry_run(model, data, params, history, hardware)
    training = set_up(model, data, params, hardware, processes)
    checkpoint = Checkpoint(model, identify(training, data))
    last_layer_alone = training.classifier.card.network.fit == "last-layer"
    run = train_last_layer if last_layer_alone else run_epochs
    if processes.is_main:
        weights = sum(value.nbytes for value in training.classifier.network.state_dict().values())
        checkpoint.check(4 * weights)  # Adam keeps two numbers for each; and the best epoch's
    try:
        return run(training, checkpoint, history)
    except RuntimeError as error:
        # The photos may have taken the GPU memory that training needs.
        if not (training.loader.resident and processes.world_size == 1 and is_out_of_memory(error)):
            raise
    del training
    gc.collect()
    free_gpu(model)
    training = set_up(model, data, params, hardware, processes, resident=False)
    return run(training, checkpoint, history)


def free_gpu(model: str) -> None:
    """Say that photos were taken out of the GPU's memory, and make it free for others."""
    print(f"{model}: out of GPU memory; the photos stay in the computer's memory from now on")
    torch.cuda.empty_cache()


def dry_run(
    model: str, data: TrainingData, params: Params, history: Path, hardware: Hardware
) -> None:
    """Go through a whole training with two photos, so that what cannot work fails at once.

    A training step, a validation, what is fitted after the last epoch, and a model file that is
    written and read again. Arguments as for `train`; the file is written next to the history.

    Raises:
        LesionsError: names the network and what it cannot do.
    """
    title, size = params.network(model).title, data.photos.size
    two = data._replace(train=data.train.drop_duplicates("image_id")[:2], val=data.val[:2])
    changes = {"epochs": 1, "shortcut": 0.0, "head": "trained"}
    file = history.with_name(f".{model}.dry.partial")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torch.hub writes there, so not None
            small = params.model_copy(update=changes)
            training = set_up(model, two, small, hardware, SINGLE_PROCESS, resident=False)
            if params.network(model).fit == "all":
                train_one_epoch(training, 1)
            validate(training, 1)
            best = BestEpoch(1, copy_weights(training))
            done = TrainingState([{"epoch": 1, "seconds": 0.0}], best, ["a dry run"])
            trained = finish(training, done, Checkpoint(model, "dry run"))
            model_file.save(file, trained.state, trained.subspace, trained.card)
            model_file.load(file, hardware)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        why = " ".join(str(error).split())[:300]
        advice = "Choose another network or image_size."
        if "deterministic" in why:
            advice = "Set deterministic: false, or choose another network."
        raise LesionsError(
            f"{title}: cannot be trained on photos of {size} px in {hardware.precision} on "
            f"{hardware.device.type} ({why}). {advice}"
        ) from error
    finally:
        file.unlink(missing_ok=True)


def run_epochs(training: Training, checkpoint: Checkpoint, history: Path) -> Trained | None:
    """Train all epochs, or those that an interrupted run has left; arguments as for `train`."""
    params, is_main = training.params, training.processes.is_main
    done = resume(training, checkpoint)
    if is_main and done.history:  # DVC has deleted the file; there may be no epoch left
        write_csv(history, history_table(training, done))
    for epoch in range(len(done.history) + 1, params.epochs + 1):
        # Train, then validate.
        start = time.perf_counter()
        train_result = train_one_epoch(training, epoch)
        seconds_training = time.perf_counter() - start
        try:
            val_result = validate(training, epoch)
        except RuntimeError as error:
            # This epoch is not lost, if the photos can make room.
            alone = training.processes.world_size == 1
            if not (training.loader.resident and alone and is_out_of_memory(error)):
                raise
            training.loader.leave_gpu()
            free_gpu(training.model)
            val_result = validate(training, epoch)
        done.history.append(
            {
                "epoch": epoch,
                **train_result.metrics("train"),
                **val_result.metrics("val"),
                "seconds": round(time.perf_counter() - start, 2),
                "photos_per_second": round(len(training.train.rows) / seconds_training, 2),
            }
        )
        # Keep a copy of the best epoch's weights.
        if done.best is None or params.keep == "last" or _improved(done.history, done.best):
            done.best = BestEpoch(epoch, copy_weights(training))
        # Write the history and the checkpoint.
        if is_main:
            write_csv(history, history_table(training, done))
            if checkpoint.is_due or epoch == params.epochs:
                save_checkpoint(training, checkpoint, done)
        print(describe_epoch(training, done.history), flush=True)
    return finish(training, done, checkpoint) if is_main else None


def train_last_layer(training: Training, checkpoint: Checkpoint, history: Path) -> Trained | None:
    """Fit the last layer alone; arguments as for `train`. It counts as one epoch."""
    if not training.processes.is_main:
        return None
    training = replace(training, processes=SINGLE_PROCESS)
    start = time.perf_counter()
    train_result = refit(training)
    seconds = time.perf_counter() - start
    row = {
        "epoch": 1,
        **train_result.metrics("train"),
        **validate(training, 1).metrics("val"),
        "seconds": round(time.perf_counter() - start, 2),
        "photos_per_second": round(len(train_result.labels) / seconds, 2),
    }
    here = f"{training.classifier.card.device}, {training.classifier.card.precision}"
    done = TrainingState([row], BestEpoch(1, copy_weights(training)), [here])
    write_csv(history, history_table(training, done))
    return finish(training, done, checkpoint)


def refit(training: Training) -> EpochResult:
    """Replace the last layer by one that is fitted on the features of the training photos.

    Returns:
        How well it does on these photos, each once.
    """
    classifier = training.classifier
    rows, first = np.unique(training.train.rows, return_index=True)
    labels, groups = training.train.labels[first], training.train_groups.iloc[first]
    features = last_layer.compute_features(classifier, training.loader, rows)
    classes = len(classifier.card.classes)
    weights, biases = last_layer.fit_last_layer(features, labels, groups, classes)
    layer = last_layer.find_last_layer(classifier.network, classifier.card.network.title)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(biases))
    logits = features @ weights.T + biases
    return EpochResult(cross_entropy(logits, labels), logits.argmax(axis=1), labels, classes)


def has_fitted_head(params: Params, network: NetworkSpec) -> bool:
    """Say whether the last layer is fitted by logistic regression in the end."""
    return params.head == "refitted" or network.fit == "last-layer"


def copy_weights(training: Training) -> dict[str, Tensor]:
    """Copy the weights and buffers of the network."""
    state = training.classifier.network.state_dict()
    return {key: value.detach().clone() for key, value in state.items()}


def set_up(
    model: str,
    data: TrainingData,
    params: Params,
    hardware: Hardware,
    processes: Processes,
    resident: bool = True,
) -> Training:
    """Prepare all that the epochs share: photos, network, optimizer.

    Args:
        model, data, params, hardware, processes: as for `train`.
        resident: put all photos into the GPU's memory, if they fit.

    Raises:
        LesionsError: a photo is missing, or the batch size does not suit the processes.
    """
    check_batch_size(params.batch_size, processes.world_size)
    device = hardware.device

    # The photos.
    train_rows = data.photos.rows(data.train["image_id"])
    val_rows = data.photos.rows(data.val["image_id"])
    images = plant_shortcut(model, data, params) if params.shortcut else data.photos.images
    loader = PhotoLoader(images, device, resident)
    mean, std = channel_statistics(loader, np.unique(train_rows))

    # The network.
    entry, weights = params.network(model), params.starting_weights(model)
    network = architectures.build(entry, len(data.dataset.classes), weights, params.seed)
    if has_fitted_head(params, entry):
        last_layer.find_last_layer(network, entry.title)  # now, not after the last epoch
    software = versions()
    if weights == "imagenet":
        software["ImageNet weights"] = architectures.imagenet_weights_hash(entry)
    card = ModelCard(
        name=model,
        network=entry,
        dataset=data.dataset,
        image_size=data.photos.size,
        mean=mean,
        std=std,
        fitted=(),
        weights=weights,
        seed=params.seed,
        recipe=params.recipe(),
        observations={code: int((data.train["dx"] == code).sum()) for code in data.dataset.classes},
        precision=hardware.precision,
        device=_device_name(device, processes),
        versions=software,
    )
    classifier = Classifier(network, card, Hardware(device, "fp32"))
    parallel = Classifier(processes.parallelise(network, device), card, hardware)

    # The optimizer; train_one_epoch sets the learning rate before every step.
    optimizer = torch.optim.Adam(network.parameters(), lr=params.lr, fused=True)
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
        train=LabelledRows(train_rows, data.dataset.labels_of(data.train["dx"])),
        val=LabelledRows(val_rows, data.dataset.labels_of(data.val["dx"])),
        train_groups=groups_of(data.train),
        val_photos=data.val,
        classifier=classifier,
        parallel=parallel,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(device.type, enabled=hardware.precision == "fp16"),
    )


def plant_shortcut(model: str, data: TrainingData, params: Params) -> Pixels:
    """Draw a ruler on the photos that `shortcut.choose_photos` chooses.

    Returns:
        (n, s, s, 3) uint8, all photos. Only the changed ones take memory.
    """
    if (watched := data.dataset.watched) is None:
        raise LesionsError("shortcut: the dataset watches no group; set shortcut: 0, or `watched`.")
    images = data.photos.writable()
    classes = data.dataset.groups[watched]
    chosen = shortcut.choose_photos(data.train, classes, params.shortcut, params.seed)
    rows = data.photos.rows(pd.Series(chosen))
    images[rows] = shortcut.draw_ruler(images[rows])
    print(f"{model}: shortcut: a ruler on {len(rows)} training photos of {watched}")
    return images


def check_batch_size(batch_size: int, processes: int) -> None:
    """Refuse a batch that the processes cannot share equally, at least two photos each."""
    if batch_size % processes or batch_size < 2 * processes:
        raise LesionsError(
            f"batch_size {batch_size} cannot be shared by {processes} devices, at least two photos "
            f"each: make it a multiple of {processes}, {2 * processes} or more, or change devices."
        )


def _device_name(device: torch.device, processes: Processes) -> str:
    name, count = describe_device(device), processes.world_size
    return name if count == 1 else f"{count} × {name}"


def identify(training: Training, data: TrainingData) -> str:
    """Compute the fingerprint of a training run: of all that its result depends on.

    It leaves out the hardware, although its rounding changes the last bits: a run that is
    interrupted on one machine can resume on another.
    """
    card = training.classifier.card.model_dump(exclude={"device", "precision"})
    settings = set(TrainingParams.model_fields) - HARDWARE_PARAMS
    params = training.params.model_dump(include=settings)
    return fingerprint({**params, **card, "code": code_digest()}, data.photos, data.train, data.val)


def resume(training: Training, checkpoint: Checkpoint) -> TrainingState:
    """Load the checkpoint into network and optimizer, if there is one."""
    processes, card = training.processes, training.classifier.card
    here = f"{card.device}, {card.precision}"
    saved = processes.broadcast(checkpoint.load() if processes.is_main else None)
    if saved is None:
        return TrainingState([], None, [here])
    training.classifier.network.load_state_dict(saved["network"])
    training.optimizer.load_state_dict(saved["optimizer"])
    if saved["scaler"] and training.scaler.is_enabled():
        training.scaler.load_state_dict(saved["scaler"])
    done = TrainingState(saved["history"], BestEpoch(**saved["best"]), saved["hardware"])
    print(f"{training.model}: resumes after epoch {len(done.history)} of {training.params.epochs}")
    if done.hardware[-1] != here:
        print(
            f"{training.model}: until then on {done.hardware[-1]}, now on {here}; the last bits of "
            "the result may differ from those of a run on one of them, and on another kind of "
            "device dropout draws other numbers"
        )
        done.hardware.append(here)
    return done


def save_checkpoint(training: Training, checkpoint: Checkpoint, done: TrainingState) -> None:
    """Write all that `resume` needs."""
    state: dict[str, Any] = {
        "network": training.classifier.network.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict(),
        "history": done.history,
        "best": vars(done.best),
        "hardware": done.hardware,
    }
    checkpoint.save(state)


def _improved(history: list[dict[str, float]], best: BestEpoch) -> bool:
    """Say whether the last epoch has a higher weighted F1 on validation than the best so far."""
    return history[-1]["val_weighted_f1"] > history[best.epoch - 1]["val_weighted_f1"]


def history_table(training: Training, done: TrainingState) -> pd.DataFrame:
    """Make the table of history.csv: one row per epoch; `best` is 1 for the epoch that is used."""
    assert done.best is not None
    table = pd.DataFrame(done.history)
    table.insert(0, "model", training.classifier.card.network.title)
    return table.assign(best=(table["epoch"] == done.best.epoch).astype(int))


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


def validation_table(photos: pd.DataFrame, probabilities: Floats, card: ModelCard) -> pd.DataFrame:
    """Keep the predictions of the validation photos, so that experiments can be compared in pairs.

    Returns:
        Columns image_id, lesion or patient, actual, and one probability per class in class order.
    """
    ids = dict.fromkeys(("image_id", group_column(photos)))
    table = photos[list(ids)].assign(actual=photos["dx"]).reset_index(drop=True)
    columns = pd.DataFrame(probabilities.round(6), columns=list(card.classes))
    return pd.concat([table, columns], axis=1)


def finish(training: Training, done: TrainingState, checkpoint: Checkpoint) -> Trained:
    """Go back to the best epoch, and fit what turns its logits into decisions on validation."""
    classifier, val, best = training.classifier, training.val, done.best
    assert best is not None
    classifier.network.load_state_dict(best.state)
    card = classifier.card

    # Fit the last layer again, if that is asked for. It then expects all classes equally often.
    trained = np.bincount(training.train.labels, minlength=len(card.classes)).astype(np.float64)
    if training.params.head == "refitted" and card.network.fit == "all":
        refit(training)
    if has_fitted_head(training.params, card.network):
        trained = (trained > 0).astype(np.float64)

    # Find the subspace that the features of the training photos lie in.
    photos = np.unique(training.train.rows)
    count = min(len(photos), out_of_distribution.MAX_PHOTOS)
    chosen = photos[np.linspace(0, len(photos) - 1, count).astype(int)]
    features = run_inference(classifier, training.loader, chosen).features
    subspace = out_of_distribution.fit_subspace(features)

    # Fit on validation, in the precision and with the views that will be used.
    fitted = []
    for views in get_args(Views):
        outputs = run_inference(classifier, training.loader, val.rows, views)
        distances = out_of_distribution.distances(outputs.features, subspace)
        units, dataset = groups_of(training.val_photos), card.dataset
        one = fit(outputs.logits, distances, val.labels, units, dataset, trained, views)
        fitted.append((one, outputs.logits))
    as_it_is, logits = fitted[0]
    probabilities = as_it_is.calibration.probabilities(logits)
    device = "; then ".join(done.hardware) if len(done.hardware) > 1 else card.device
    update = {"fitted": tuple(one for one, _ in fitted), "device": device}
    return Trained(
        state=copy_weights(training),
        subspace=subspace,
        card=card.model_copy(update=update),
        history=history_table(training, done),
        metrics=rounded_key_metrics(
            probabilities, np.asarray(probabilities.argmax(axis=1)), val.labels, card.dataset
        ),
        validation=validation_table(training.val_photos, probabilities, card),
        checkpoint=checkpoint,
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
