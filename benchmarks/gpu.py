"""All that only a GPU can show, in one command of less than nine minutes.

    make gpu PHOTOS=folder        or, without make: python -m benchmarks.gpu --photos folder

It answers, for each network: do the GPU tests pass, do two runs give the same bytes, how fast is
training compared with the bare network and with the chip's own limits, how long does the whole
recipe take, and what do several GPUs gain. It needs neither DVC nor a network connection, only the
packages that training imports, and prints the rows for docs/performance.md and writes them as JSON.
A part that fails is reported, and the next one runs.

Without photos it makes synthetic ones: as many, and balanced in the same way. A rehearsal on a CPU:
`python -m benchmarks.gpu --device cpu --image-size 32 --minutes 3`.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
import yaml
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import throughput
from lesions.common.artifacts import write_csv, write_text
from lesions.common.params import Params, load_params
from lesions.dataset.balancing import balance
from lesions.dataset.diagnoses import CODES
from lesions.dataset.photos import resize
from lesions.networks import hardware
from lesions.networks.architectures import build

ROOT = Path(__file__).parent.parent
# HAM10000's training photos of each diagnosis; balanced, they are 35,337 observations.
TRAINING_PHOTOS = dict(zip(CODES, (272, 450, 941, 101, 1029, 5101, 119), strict=True))
FEW = 640  # observations of the short trainings
ROUNDS = 4  # of the comparison with the bare network
MATRIX = {"cuda": 8192, "cpu": 2048}  # side of the matrices whose product measures the chip
Found = dict[str, Any]


class Deadline:
    """The time that is left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Seconds, at least one."""
        return max(1.0, self._end - time.monotonic())


def stage(folder: Path, name: str, *arguments: str, timeout: float, **environment: str) -> str:
    """Run a stage in a folder; return what it printed.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{name}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LESIONS_CACHE": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"stages.{name}: {done.stdout[-2000:]}")
    return done.stdout


def set_params(folder: Path, params: Params, **changes: object) -> None:
    """Write params.yaml."""
    values = {**params.model_dump(), **changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


def prepare(folder: Path, params: Params, photos: Path | None, deadline: Deadline) -> Found:
    """Fill data/ with what training reads: from real photos, or from synthetic ones."""
    start = time.perf_counter()
    if photos:
        # The stages run in another folder.
        pairs = str(Path(params.same_lesion).resolve())
        source = str(photos.resolve())
        set_params(folder, params, source=source, same_lesion=pairs, weights="random")
        for name in ("download", "resize", "split", "balance"):
            stage(folder, name, timeout=deadline.left())
    else:
        (folder / "jpeg").mkdir()
        paths = throughput.encode(folder / "jpeg")
        readers = [(path.name, path.read_bytes) for path in paths]
        resize(readers, params.image_size, folder / "images.npy")
        pixels = np.load(folder / "images.npy")
        total = sum(TRAINING_PHOTOS.values())
        throughput.project(folder, pixels, total + 1001, params)
        dx = np.repeat(list(TRAINING_PHOTOS), list(TRAINING_PHOTOS.values()))
        ids = pd.read_csv(folder / "data/resized/image_ids.csv")["image_id"]
        train = pd.DataFrame({"image_id": ids[:total], "lesion_id": ids[:total], "dx": dx})
        val_dx = np.resize(CODES, len(ids) - total)
        val = pd.DataFrame({"image_id": ids[total:], "lesion_id": ids[total:], "dx": val_dx})
        write_csv(folder / "data/split/val.csv", val)
        write_csv(folder / "data/balanced/train.csv", balance(train, params.balance)[0])
    rows = pd.read_csv(folder / "data/balanced/train.csv")
    return {
        "photos": "real" if photos else "synthetic",
        "observations": len(rows),
        "seconds": time.perf_counter() - start,
    }


@contextmanager
def few_observations(folder: Path) -> Iterator[None]:
    """Use every n-th observation only, FEW in all."""
    path = folder / "data/balanced/train.csv"
    everything = path.read_bytes()
    rows = pd.read_csv(path)
    write_csv(path, rows.iloc[:: max(1, len(rows) // FEW)][:FEW])
    try:
        yield
    finally:
        path.write_bytes(everything)


def run_tests(deadline: Deadline) -> Found:
    """Run the tests that need a GPU, without the plug-ins that pyproject.toml asks for."""
    options = ["-c", os.devnull, "--rootdir", str(ROOT), "-o", "pythonpath=. tests"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *options, "tests/networks", "tests/training"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=deadline.left(),
        check=False,
    )
    return {"exit_code": done.returncode, "last_lines": done.stdout.splitlines()[-8:]}


def same_bytes(folder: Path, params: Params, model: str, deadline: Deadline) -> Found:
    """Train twice for an epoch, and compare the model files."""
    set_params(folder, params, epochs=1, weights="random")
    digests = []
    with few_observations(folder):
        for _ in range(2):
            stage(folder, "train", model, timeout=deadline.left())
            content = (folder / f"models/{model}.safetensors").read_bytes()
            digests.append(hashlib.sha256(content).hexdigest())
    return {"same": digests[0] == digests[1], "sha256": digests[0][:16]}


def limits(used: hardware.Hardware) -> Found:
    """Measure the chip: the product of large matrices in the precision of training, and a copy."""
    device, side = used.device, MATRIX.get(used.device.type, 2048)
    dtype = hardware.AUTOCAST.get(used.precision, torch.float32)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    block = torch.empty(2**28, dtype=torch.uint8, device=device)

    def product() -> int:
        for _ in range(5):
            left @ right
        return 5

    def copy() -> int:
        for _ in range(5):
            block.clone()
        return 5

    rates = throughput.in_turns({"product": product, "copy": copy}, 5, device)
    return {
        "tflops": rates["product"].median() * 2 * side**3 / 1e12,
        "gigabytes_per_second": rates["copy"].median() * 2 * len(block) / 1e9,
    }


def speed(folder: Path, params: Params, model: str, used: hardware.Hardware) -> Found:
    """Compare training with the bare network and inference with bare inference."""
    images = np.load(folder / "data/resized/images.npy", mmap_mode="r")
    (folder / "jpeg").mkdir(exist_ok=True)
    paths = throughput.encode(folder / "jpeg")
    found = throughput.model(model, images, paths, params, used, ROUNDS)
    network = build(params.network(model), len(CODES), "random", 0)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 3, params.image_size, params.image_size))
    # Backward computes the gradient of the inputs and of the weights: twice as much as forward.
    found["gflop_per_photo"] = 3 * counter.get_total_flops() / 1e9
    if used.device.type == "cuda":
        found["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def without_determinism(folder: Path, params: Params, model: str, deadline: Deadline) -> Found:
    """Train FEW observations for three epochs, with `deterministic` true and false."""
    rates = {}
    with few_observations(folder):
        for deterministic in (True, False):
            set_params(folder, params, epochs=3, weights="random", deterministic=deterministic)
            stage(folder, "train", model, timeout=deadline.left())
            history = pd.read_csv(folder / f"plots/{model}/history.csv")
            rates[deterministic] = float(history["photos_per_second"].iloc[1:].max())
    return {"gain": rates[False] / rates[True]}


def recipe(folder: Path, params: Params, model: str, seconds: float) -> Found:
    """Train as many epochs of the whole recipe as fit, and extrapolate to all."""
    set_params(folder, params, weights="random")
    written = folder / f"plots/{model}/history.csv"  # after every epoch
    written.unlink(missing_ok=True)
    with suppress(subprocess.TimeoutExpired):
        stage(folder, "train", model, timeout=seconds)
    if not written.exists():
        raise RuntimeError(f"no epoch in {seconds:.0f} s")
    history = pd.read_csv(written)
    after_first = history["seconds"].iloc[1:] if len(history) > 1 else history["seconds"]
    return {
        "epochs_measured": len(history),
        "first_epoch_seconds": float(history["seconds"].iloc[0]),
        "epoch_seconds": float(after_first.median()),
        "minutes_for_all_epochs": float(
            (history["seconds"].iloc[0] + (params.epochs - 1) * after_first.median()) / 60
        ),
        "photos_per_second": float(history["photos_per_second"].median()),
        "val_weighted_f1": history["val_weighted_f1"].tolist(),
    }


def several(folder: Path, params: Params, model: str, deadline: Deadline) -> Found:
    """Train in one process and in one per device, two epochs each; compare the second."""
    on_gpu = params.device != "cpu" and torch.cuda.is_available()
    count = torch.cuda.device_count() if on_gpu else 2
    if count < 2:
        return {"devices": count}
    rates, losses = [], []
    with few_observations(folder):
        for devices in (1, count):
            set_params(folder, params, epochs=2, devices=devices, weights="random")
            # On a CPU, each process has one thread.
            stage(folder, "train", model, timeout=deadline.left(), OMP_NUM_THREADS="1")
            last = pd.read_csv(folder / f"plots/{model}/history.csv").iloc[-1]
            rates.append(float(last["photos_per_second"]))
            losses.append(float(last["train_loss"]))
    return {
        "devices": count,
        "gain": rates[1] / rates[0],
        "photos_per_second": rates,
        "train_loss": losses,
    }


def table(found: Found) -> str:
    """Lay out the results as a Markdown table: one row per measurement, one column per network."""
    models = [name for name in found if isinstance(found[name], dict) and "speed" in found[name]]
    rows = {
        "training / bare network, goal ≥ .95": ("speed", "ours_vs_ceiling", "{:.2f}"),
        "training / original loop": ("speed", "ours_vs_reference", "{:.1f}"),
        "augmentation / step, goal ≤ .05": ("speed", "augment_share", "{:.3f}"),
        "evaluation / bare inference, goal ≥ .9": ("speed", "evaluate_vs_inference", "{:.2f}"),
        "photos/s, training": ("speed", "ours_photos_per_second", "{:,.0f}"),
        "not deterministic / deterministic": ("without_determinism", "gain", "{:.2f}"),
        "photos/s, evaluation": ("speed", "evaluation_photos_per_second", "{:,.0f}"),
        "share of the chip's measured arithmetic": ("speed", "share_of_limit", "{:.0%}"),
        "peak GPU memory, GB": ("speed", "peak_memory_gb", "{:.1f}"),
        "whole recipe, minutes, goal < 3": ("recipe", "minutes_for_all_epochs", "{:.1f}"),
        "epochs measured": ("recipe", "epochs_measured", "{}"),
        "two runs give the same bytes": ("same_bytes", "same", "{}"),
        "several devices / one": ("several", "gain", "{:.2f}"),
    }
    lines = [f"| | {' | '.join(models)} |", "|---" * (len(models) + 1) + "|"]
    for title, (part, key, form) in rows.items():
        cells = []
        for name in models:
            value = found[name].get(part, {}).get(key)
            cells.append("" if value is None else form.format(value))
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def attempt(found: Found, name: str, part: Callable[[], Found]) -> None:
    """Run one part; a failure is a result too."""
    start = time.perf_counter()
    try:
        found[name] = part()
    except Exception as error:  # so that the other parts run
        found[name] = {"failed": f"{type(error).__name__}: {error}"[-2500:]}
        traceback.print_exc()
    print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def main(
    photos: Annotated[
        Path | None, typer.Option(help="A folder as for `source` in params.yaml.")
    ] = None,
    device: str = "auto",
    image_size: int = 224,
    minutes: Annotated[float, typer.Option(help="About how long it may take.")] = 8.5,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path("gpu.json"),
) -> None:
    """Measure all that only a GPU can show."""
    deadline = Deadline(minutes)
    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(update={"device": device, "image_size": image_size})
    used = hardware.set_up(device, params.precision, params.deterministic)
    name = hardware.describe_device(used.device)
    found: Found = {"device": name, "torch": torch.__version__, "precision": used.precision}
    print(f"{name}, torch {torch.__version__}, {used.precision}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        attempt(found, "data", partial(prepare, folder, params, photos, deadline))
        attempt(found, "tests", partial(run_tests, deadline))
        attempt(found, "limits", partial(limits, used))
        for model in params.networks:
            parts: Found = {}
            attempt(parts, "speed", partial(speed, folder, params, model, used))
            for part in (same_bytes, without_determinism, several):
                attempt(parts, part.__name__, partial(part, folder, params, model, deadline))
            if "gflop_per_photo" in parts["speed"] and "tflops" in found["limits"]:
                speeds = parts["speed"]
                tflops = speeds["ours_photos_per_second"] * speeds["gflop_per_photo"] / 1000
                speeds["share_of_limit"] = tflops / found["limits"]["tflops"]
            found[model] = parts
            write_text(out, json.dumps(found, indent=2) + "\n")
        # The rest of the time is shared by the networks.
        for number, model in enumerate(params.networks):
            seconds = deadline.left() / (len(params.networks) - number)
            attempt(found[model], "recipe", partial(recipe, folder, params, model, seconds))
    write_text(out, json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    print(f"\n{name}, torch {torch.__version__}, {used.precision}, {image_size} px\n")
    print(table(found))


if __name__ == "__main__":
    typer.run(main)
