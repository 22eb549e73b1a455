"""Throughput: does the network ever wait for photos? `make bench` prints the ratios.

Everything is measured in one run on one device, in turns, so that a noisy machine slows both sides
of a ratio alike; a ratio is the median of the rounds' ratios. The photos are synthetic, with noise
that gives their JPEGs the size of HAM10000's (600×450, about 257 KB). It takes about 15 minutes on
two cores and needs Linux, whose /proc tells private from memory-mapped memory.
"""

import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import typer
import yaml
from PIL import Image
from torch import Tensor

from lesions.common.artifacts import write_csv
from lesions.common.params import Params, load_params
from lesions.common.types import Pixels
from lesions.dataset.description import Description, load_description
from lesions.dataset.photos import PhotoArray, resize
from lesions.networks import hardware
from lesions.networks.architectures import build
from lesions.networks.augmentation import augment, random_changes, to_float
from lesions.networks.batches import PhotoLoader, channel_statistics, split_into_batches
from lesions.networks.classifier import Classifier
from lesions.networks.inference import run_inference
from lesions.networks.model_card import ModelCard, versions
from lesions.sources.sample import LESIONS, render_photo
from lesions.training.epochs import LabelledRows, Training, train_one_epoch
from lesions.training.processes import Processes

ROOT = Path(__file__).parent.parent
PHOTOS = 64  # synthetic ones, encoded as JPEG
ARRAY = 2000  # photos of the array at 1×; 301 MB at 224 px
GROWTH = (1, 2, 4)
PAUSE = 1.0  # seconds until the original loop's workers have filled their queues
NOISE, QUALITY = 24, 97  # of the JPEGs: about 257 KB each
Work = Callable[[], int]  # processes photos and returns how many


def in_turns(
    works: dict[str, Work], repeats: int, device: torch.device, pause: float = 0.0
) -> pd.DataFrame:
    """Time each work once per round, after a warm-up round: photos per second.

    Args:
        works: by their names.
        repeats: how many rounds.
        device: that must have finished before the clock is read.
        pause: seconds before each work, in which what an earlier one has started can end.
    """

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    rounds = []
    for _ in range(repeats + 1):
        rates = {}
        for name, work in works.items():
            time.sleep(pause)
            wait()
            start = time.perf_counter()
            count = work()
            wait()
            rates[name] = count / (time.perf_counter() - start)
        rounds.append(rates)
    return pd.DataFrame(rounds[1:])


def ratio(over: "pd.Series[float]", under: "pd.Series[float]") -> dict[str, float]:
    """Compare two rates round by round: the median, lowest and highest ratio."""
    each = over / under
    return {"median": each.median(), "lowest": each.min(), "highest": each.max()}


def encode(folder: Path) -> list[Path]:
    """Render PHOTOS photos of 600×450 with noise and write them as JPEG."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(PHOTOS):
        photo = np.asarray(render_photo(list(LESIONS)[number % len(LESIONS)], 0, number, 0))
        noisy = (photo + rng.normal(0, NOISE, photo.shape)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"photo{number:03}.jpg")
        Image.fromarray(noisy).save(paths[-1], quality=QUALITY)
    return paths


def described(params: Params) -> Description:
    """Read the description that the parameters name."""
    return load_description(str(ROOT / params.dataset))


def project(folder: Path, photos: Pixels, count: int, params: Params) -> Path:
    """Write what `stages.train` reads, for `count` photos: the given ones, repeated."""
    resized = folder / "data" / "resized"
    for name in (resized, folder / "data" / "split", folder / "data" / "balanced"):
        name.mkdir(parents=True)
    array = np.lib.format.open_memmap(
        resized / "images.npy", mode="w+", dtype=np.uint8, shape=(count, *photos.shape[1:])
    )
    for start in range(0, count, len(photos)):
        array[start : start + len(photos)] = photos[: count - start]
    array.flush()
    ids = [f"P{row:06}" for row in range(count)]
    classes = described(params).classes
    dx = [classes[row % len(classes)] for row in range(count)]
    table = pd.DataFrame({"image_id": ids, "lesion_id": ids, "dx": dx})
    write_csv(resized / "image_ids.csv", table[["image_id"]])
    write_csv(folder / "data" / "balanced" / "train.csv", table)
    write_csv(folder / "data" / "split" / "val.csv", table[:70])
    # The stages run in this folder.
    dataset = str((ROOT / params.dataset).resolve())
    values = {**params.model_dump(), "weights": "random", "dataset": dataset}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder


@contextmanager
def defaults_of_torch() -> Iterator[None]:
    """Compute as torch does if nothing is set: not deterministic, TF32 in convolutions."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.allow_tf32 = False


def usual_loop(paths: list[Path], side: int, params: Params) -> Iterator[tuple[Tensor, Tensor]]:
    """Load like the original study: DataLoader workers decode and change each photo."""
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    change = params.augment
    steps = transforms.Compose(
        [
            transforms.Resize((side, side)),
            transforms.RandomHorizontalFlip(change.horizontal_flip),
            transforms.RandomVerticalFlip(change.vertical_flip),
            transforms.RandomRotation(change.rotation),
            transforms.ColorJitter(change.brightness, change.contrast, hue=change.hue),
            transforms.ToTensor(),
            transforms.Normalize((0.76, 0.55, 0.57), (0.14, 0.15, 0.17)),
        ]
    )

    class Photos(Dataset[tuple[Any, int]]):
        def __len__(self) -> int:
            return 1_000_000

        def __getitem__(self, index: int) -> tuple[Any, int]:
            with Image.open(paths[index % len(paths)]) as photo:
                return steps(photo.convert("RGB")), index % len(LESIONS)

    workers, pinned = os.cpu_count() or 1, torch.cuda.is_available()
    yield from DataLoader(
        Photos(), params.batch_size, shuffle=True, num_workers=workers, pin_memory=pinned
    )


def model(
    name: str,
    images: Pixels,
    paths: list[Path],
    params: Params,
    used: hardware.Hardware,
    rounds: int | None = None,
) -> dict[str, Any]:
    """Measure training and inference of one network.

    Args:
        name: of the network.
        images: the array of photos.
        paths: the JPEG files that the original loop decodes.
        params: all parameters.
        used: where to compute, and in which precision.
        rounds: by default 5 on a CPU and 7 on a GPU.
    """
    device = used.device
    autocast = hardware.AUTOCAST.get(used.precision)
    bare_precision = partial(torch.autocast, device.type, autocast, enabled=autocast is not None)
    steps, repeats = (3, 5) if device.type == "cpu" else (100, 7)
    size, side = params.batch_size, images.shape[1]
    dataset = described(params)
    card = ModelCard(
        name=name,
        network=params.network(name),
        dataset=dataset,
        image_size=side,
        mean=(0.76, 0.55, 0.57),
        std=(0.14, 0.15, 0.17),
        fitted=(),
        weights="random",
        seed=0,
        recipe=params.recipe(),
        observations={},
        precision=used.precision,
        device=hardware.describe_device(device),
        versions=versions(),
    )

    def network() -> torch.nn.Module:
        return build(params.network(name), len(dataset.classes), "random", 0)

    def classifier() -> tuple[Classifier, torch.optim.Optimizer]:
        made = Classifier(network(), card, used)
        return made, torch.optim.Adam(made.network.parameters(), params.lr, fused=True)

    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, len(dataset.classes), size)).to(device)
    resident = torch.from_numpy(np.array(images[:size])).to(device)
    ready = to_float(resident).contiguous(memory_format=torch.channels_last)
    changes = torch.from_numpy(random_changes(size, params.augment, rng)).to(device)
    loader = PhotoLoader(images, device, resident=True)
    bare, bare_optimizer = classifier()
    own, own_optimizer = classifier()

    scaler = torch.amp.GradScaler(device.type, enabled=used.precision == "fp16")

    def ceiling() -> int:
        bare.network.train()
        for _ in range(steps):
            with bare_precision():
                output = bare.network(ready)
            loss = F.cross_entropy(output.float(), labels)
            bare_optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(bare_optimizer)
            scaler.update()
        return steps * size

    def ours() -> int:
        rows = rng.integers(0, len(images), steps * size)
        observations = LabelledRows(rows, rng.integers(0, len(dataset.classes), steps * size))
        training = Training(
            model=name,
            params=params,
            processes=Processes(),
            loader=loader,
            train=observations,
            val=observations,
            train_groups=pd.Series(np.arange(steps * size).astype(str)),
            val_photos=pd.DataFrame(),
            classifier=own,
            parallel=own,
            optimizer=own_optimizer,
            scaler=scaler,
        )
        train_one_epoch(training, epoch=1)
        return steps * size

    usual = network().to(device)
    usual_optimizer = torch.optim.Adam(usual.parameters(), params.lr)
    coming = usual_loop(paths, side, params)

    def reference() -> int:
        usual.train()
        with defaults_of_torch():
            for _ in range(steps):
                photos, target = next(coming)
                photos, target = photos.to(device), target.to(device)
                usual_optimizer.zero_grad()
                output = usual(photos)
                loss = F.cross_entropy(output, target)
                loss.backward()
                usual_optimizer.step()
                loss.item(), (output.argmax(1) == target).sum().item()
        return steps * size

    def augmentation() -> int:
        for _ in range(steps):
            augment(resident, changes, params.augment)
        return steps * size

    def inference() -> int:
        bare.network.eval()
        with torch.inference_mode(), bare_precision():
            for _ in range(2 * steps):
                bare.network(ready)
        return 2 * steps * size

    def evaluation() -> int:
        run_inference(own, loader, rng.integers(0, len(images), 2 * steps * size))
        return 2 * steps * size

    works = {work.__name__: work for work in (ceiling, ours, augmentation, inference, evaluation)}
    rates = in_turns(works, rounds or repeats, device)
    # Afterwards, because the original loop's workers go on decoding until their queues are full.
    turns = {work.__name__: work for work in (ours, reference)}
    against = in_turns(turns, rounds or repeats, device, PAUSE)
    found = {
        "ours_vs_ceiling": ratio(rates["ours"], rates["ceiling"]),
        "ours_vs_reference": ratio(against["ours"], against["reference"]),
        "augment_share": ratio(rates["ours"], rates["augmentation"]),
        "evaluate_vs_inference": ratio(rates["evaluation"], rates["inference"]),
    }
    spread = {key: [value["lowest"], value["highest"]] for key, value in found.items()}
    medians = {key: value["median"] for key, value in found.items()}
    rates["reference"] = against["reference"]
    per_second = {f"{work}_photos_per_second": median(rates[work]) for work in rates}
    return {**medians, "spread": spread, **per_second, "precision": card.precision}


def scaling(paths: list[Path], side: int) -> dict[str, float]:
    """Compare the resize stage with decoding alone, both on all cores."""
    contents = [path.read_bytes() for path in paths]

    def bare(content: bytes) -> None:
        with Image.open(io.BytesIO(content)) as photo:
            photo.load()

    def decoding() -> int:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(bare, contents * 8))
        return 8 * len(contents)

    def stage() -> int:
        with tempfile.TemporaryDirectory() as folder:
            photos = [(path.name, path.read_bytes) for path in paths * 8]
            resize(photos, side, Path(folder) / "images.npy")
        return 8 * len(paths)

    rates = in_turns({"decoding": decoding, "stage": stage}, 7, torch.device("cpu"))
    return ratio(rates["stage"], rates["decoding"]) | {"photos_per_second": median(rates["stage"])}


def first_step_seconds(folder: Path) -> list[float]:
    """Time from the start of `python -m stages.train` to the first batch; files are cached."""
    # Not to the batch of the dry run, which comes before the epochs.
    child = (
        "import os, runpy, sys\n"
        "from torch.nn.modules.module import register_module_forward_pre_hook\n"
        "from lesions.training import loop\n"
        "def run_epochs(*_, run=loop.run_epochs):\n"
        "    register_module_forward_pre_hook(lambda *_: os._exit(0))\n"
        "    return run(*_)\n"
        "loop.run_epochs = run_epochs\n"
        "sys.argv = ['stages.train', 'mobilenetv2']\n"
        "runpy.run_module('stages.train', run_name='__main__')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    command, seconds = [sys.executable, "-c", child], []
    for _ in range(4):
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _held() -> int:
    """Bytes of this process's private memory; memory-mapped files do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def input_side(folder: Path) -> tuple[float, int]:
    """Load and augment every photo of an array once, without a network.

    Returns:
        Seconds per photo, and the largest private memory, in bytes.
    """
    params, device = load_params(folder / "params.yaml"), torch.device("cpu")
    photos = PhotoArray(folder / "data" / "resized")
    loader = PhotoLoader(photos.images, device)
    start, most = time.perf_counter(), 0
    channel_statistics(loader, np.arange(len(photos.images)))
    rng = np.random.default_rng(0)
    order = split_into_batches(rng.permutation(len(photos.images)), params.batch_size)
    for batch in loader(order):
        changes = torch.from_numpy(random_changes(len(batch), params.augment, rng))
        augment(batch, changes, params.augment)
        most = max(most, _held())
    return (time.perf_counter() - start) / len(photos.images), most


def growth(folder: Path, photos: Pixels, params: Params) -> dict[str, Any]:
    """Load 1×, 2× and 4× the photos, each in its own process."""
    folders = {
        times: project(folder / f"{times}x", photos, times * ARRAY, params) for times in GROWTH
    }
    found: dict[int, list[tuple[float, int]]] = {times: [] for times in GROWTH}
    for _ in range(4):
        for times in GROWTH:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found[times].append(pool.submit(input_side, folders[times]).result())
    seconds = {times: median(one[0] for one in found[times][1:]) for times in GROWTH}
    held = {times: median(one[1] for one in found[times][1:]) for times in GROWTH}
    return {
        "photos": [times * ARRAY for times in GROWTH],
        "milliseconds_per_photo": [1000 * seconds[times] for times in GROWTH],
        "megabytes_held": [held[times] / 1e6 for times in GROWTH],
        "time_growth": seconds[4] / seconds[1],
        "memory_growth": held[4] / held[1],
        "first_step_seconds": first_step_seconds(folders[4]),
    }


def report(found: dict[str, Any]) -> str:
    """Write the results as text, with their goals."""
    lines = [f"{found['device']}, torch {found['torch']}", ""]
    goals = {
        "ours_vs_ceiling": "≥ 0.95",
        "ours_vs_reference": "≥ 3",
        "augment_share": "≤ 0.05",
        "evaluate_vs_inference": "≥ 0.90",
    }
    both = [key for key in found if isinstance(found[key], dict)]
    lines.append("".join(f"{word:>24}" for word in ("", *both, "goal")))
    for key, goal in goals.items():
        cells = [
            f"{found[name][key]:.3f} ({low:.2f}–{high:.2f})"
            for name in both
            for low, high in [found[name]["spread"][key]]
        ]
        lines.append("".join(f"{cell:>24}" for cell in (key, *cells, goal)))
    for key in found[both[0]]:
        if key.endswith("per_second"):
            cells = [f"{found[name][key]:.1f}" for name in both]
            lines.append("".join(f"{cell:>24}" for cell in (key[:-18] + " photos/s", *cells)))
    spread = found["resize_spread"]
    lines += [
        "",
        f"resize / bare decoding: {found['resize_vs_decode']:.3f} "
        f"({spread[0]:.2f}–{spread[1]:.2f}), goal ≥ 0.85; "
        f"{found['resize_photos_per_second']:.0f} photos/s",
        f"start to first step: {median(found['first_step_seconds']):.1f} s, goal ≤ 10",
        f"input side of {found['photos']} photos: "
        f"{', '.join(f'{value:.2f}' for value in found['milliseconds_per_photo'])} ms per photo "
        f"({found['time_growth']:.2f} times, goal ≤ 1.05), "
        f"{', '.join(f'{value:.0f}' for value in found['megabytes_held'])} MB held "
        f"({found['memory_growth']:.2f} times)",
    ]
    return "\n".join(lines)


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare training, evaluation and resize with their upper bounds."""
    params = load_params()
    used = hardware.set_up(params.device, params.precision, params.deterministic)
    device = hardware.describe_device(used.device)
    found: dict[str, Any] = {"device": device, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jpeg").mkdir()
        paths = encode(folder / "jpeg")
        found["jpeg_bytes"] = sum(path.stat().st_size for path in paths) // len(paths)
        side = params.image_size
        resize([(path.name, path.read_bytes) for path in paths], side, folder / "images.npy")
        images = np.load(folder / "images.npy")
        found |= growth(folder, images, params)
        decoded = scaling(paths, side)
        found["resize_vs_decode"] = decoded["median"]
        found["resize_spread"] = [decoded["lowest"], decoded["highest"]]
        found["resize_photos_per_second"] = decoded["photos_per_second"]
        array = PhotoArray(folder / "4x" / "data" / "resized").images
        for name in params.networks:
            found[name] = model(name, array, paths, params, used)
    print(json.dumps(found, indent=2) if as_json else report(found))


if __name__ == "__main__":
    typer.run(main)
