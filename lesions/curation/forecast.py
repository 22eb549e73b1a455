"""Forecast: how long the stages of a run take on this machine.

`lesions forecast` and `lesions new` print it before anything runs. Training and inference are
measured on their first steps, on noise, so a forecast can be off by a third: machines slow down
when they get warm, and other programs take their share.
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from lesions.common.artifacts import write_csv
from lesions.common.params import Params
from lesions.dataset.balancing import balancing_factors
from lesions.dataset.description import Description
from lesions.dataset.photos import PhotoArray, decode
from lesions.networks import hardware as machine
from lesions.networks.hardware import Hardware, describe_device
from lesions.networks.inference import run_inference
from lesions.sources.download import expected_photos
from lesions.training.epochs import train_one_epoch
from lesions.training.loop import SINGLE_PROCESS, TrainingData, set_up

PHOTOS = 256  # of noise, at most, which are used again and again
SIDES = (600, 450)  # of the photos that are decoded


class Speeds(NamedTuple):
    """Photos per second of one network."""

    training: float
    inference: float


def forecast(params: Params, dataset: Description) -> str:
    """Say what a run with these parameters does, and how long each stage takes here.

    Raises:
        LesionsError: the source is not there, or not photos of the dataset.
    """
    counts, fetched = expected_photos(params.source, params.sample_size, dataset)
    hardware = machine.set_up(params.device, params.precision, params.deterministic)
    speeds = {name: measure_network(name, params, dataset, hardware) for name in params.networks}
    decoding = measure_decoding(params.image_size)
    return describe(params, fetched, counts, decoding, speeds, hardware)


def measure_network(model: str, params: Params, dataset: Description, hardware: Hardware) -> Speeds:
    """Train and predict a few batches of noise.

    Args:
        model: its name in the table of networks.
        params: all parameters.
        dataset: gives the number of outputs.
        hardware: from `hardware.set_up`.
    """
    steps = 2 if hardware.device.type == "cpu" else 50
    count, size = steps * params.batch_size, params.image_size
    photos = min(count, PHOTOS)
    ids = [f"P{row % photos}" for row in range(count)]
    table = pd.DataFrame({"image_id": ids, "lesion_id": ids, "dx": dataset.classes[0]})
    changed = params.model_copy(update={"weights": "random", "shortcut": 0.0})
    unseen = io.StringIO()  # the lines and bars of a training, which would look like a real one
    with (
        tempfile.TemporaryDirectory() as place,
        contextlib.redirect_stdout(unseen),
        contextlib.redirect_stderr(unseen),
    ):
        noise = np.random.default_rng(0).integers(0, 255, (photos, size, size, 3), np.uint8)
        np.save(Path(place, "images.npy"), noise)
        write_csv(Path(place, "image_ids.csv"), table[["image_id"]][:photos])
        data = TrainingData(dataset, PhotoArray(Path(place)), table, table)
        training = set_up(model, data, changed, hardware, SINGLE_PROCESS)
        rows = training.val.rows
        # The first round is slower: it prepares memory and kernels.
        for _ in range(2):
            trained = _seconds(lambda: train_one_epoch(training, 1), hardware)
            predicted = _seconds(
                lambda: run_inference(training.classifier, training.loader, rows), hardware
            )
    return Speeds(count / trained, count / predicted)


def _seconds(work: Callable[[], object], hardware: Hardware) -> float:
    start = time.perf_counter()
    work()
    if hardware.device.type == "cuda":
        torch.cuda.synchronize(hardware.device)
    return time.perf_counter() - start


def measure_decoding(size: int) -> float:
    """Decode a photo of noise again and again on one core: photos per second on all cores."""
    noise = np.random.default_rng(0).normal(150, 24, (*SIDES[::-1], 3)).clip(0, 255)
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(file, "JPEG", quality=92)
    # Containers and job schedulers may allow fewer cores than the machine has.
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    start, count = time.perf_counter(), 20
    for _ in range(count):
        decode(file.getvalue(), size, "noise")
    return count / (time.perf_counter() - start) * cores


def observations(counts: Mapping[str, int], params: Params) -> int:
    """Estimate the observations per epoch: all photos but the held-out shares, balanced."""
    kept = 1 - params.val_share - params.test_share
    training = {code: max(1, round(count * kept)) for code, count in counts.items() if count}
    factors = balancing_factors(training, params.balance)
    return sum(count * factors[code] for code, count in training.items())


def describe(
    params: Params,
    fetched: str,
    counts: Mapping[str, int],
    decoding: float,
    speeds: Mapping[str, Speeds],
    hardware: Hardware,
) -> str:
    """Lay out the forecast, one line per stage.

    Args:
        params: all parameters.
        fetched: what the download stage gets, and from where.
        counts: photos of each class.
        decoding: photos per second.
        speeds: of each network.
        hardware: where they were measured.
    """
    photos, size = sum(counts.values()), params.image_size
    held_out = round(photos * params.test_share)
    validated = round(photos * params.val_share)
    epoch = observations(counts, params)
    gigabytes = photos * size * size * 3 / 1e9
    seconds = {"resize": photos / decoding}
    what = {
        "download": fetched,
        "resize": f"{photos:,} photos to {size}×{size} pixels, {gigabytes:.1f} GB",
    }
    for name, speed in speeds.items():
        stage = f"train-{name}"
        if params.networks[name].fit == "last-layer":
            once = round(photos * (1 - params.val_share - params.test_share))
            what[stage] = f"the last layer on the features of about {once:,} photos"
            seconds[stage] = (once + 6 * validated) / speed.inference
            continue
        what[stage] = (
            f"{params.epochs} epochs of about {epoch:,} observations, from "
            f"{params.starting_weights(name)} weights"
        )
        seconds[stage] = params.epochs * (epoch / speed.training + validated / speed.inference)
    networks = ", ".join(params.networks[name].title for name in speeds)
    what["evaluate"] = f"{held_out:,} test photos: {networks}"
    seconds["evaluate"] = sum(held_out * params.views / one.inference for one in speeds.values())
    width = max(map(len, what))
    lines = [
        f"  {stage:{width}}  {text}" + (f": {_about(seconds[stage])}" if stage in seconds else "")
        for stage, text in what.items()
    ]
    return "\n".join(
        [
            "This run:",
            *lines,
            f"  together {_about(sum(seconds.values()))}, and the download, on one device: "
            f"{describe_device(hardware.device)} in {hardware.precision}",
            "It leaves models/ (weights and model cards), metrics/ and plots/; `lesions report` "
            "shows all on one page.",
            "Ctrl-C stops it. Started again, it goes on after the last whole epoch.",
        ]
    )


def _about(seconds: float) -> str:
    """Say a time in hours and minutes, upwards to whole minutes.

    >>> _about(4000)
    'about 1:07 h'
    """
    minutes = int(timedelta(seconds=seconds + 59).total_seconds() // 60)
    return f"about {minutes // 60}:{minutes % 60:02} h"
