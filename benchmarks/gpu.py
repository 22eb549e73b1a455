"""All that only a GPU can show, in one command of less than nine minutes.

    make gpu PHOTOS=folder        or, without make: python -m benchmarks.gpu --photos folder

It answers, for each network: do two runs give the same bytes, what does a step cost, do the GPU
tests pass, how long does the whole recipe take, how fast is training compared with the bare network
and with the chip's own limits, and what do several GPUs gain. It needs neither DVC nor a network
connection, only the packages that training imports. What is worth most comes first. Every part has
a limit of its own, and its result is printed and written as JSON at once, so that nothing is lost
if the machine goes away. A part that fails is reported, and the next one runs.

Without photos it makes synthetic ones: as many, and balanced in the same way. A rehearsal on a CPU:
`python -m benchmarks.gpu --device cpu --image-size 32 --minutes 3`.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from lesions.dataset.photos import resize
from lesions.networks import hardware
from lesions.networks.architectures import build

ROOT = Path(__file__).parent.parent
OUT = Path(os.environ.get("OUT", "."))  # a borrowed machine brings back what is in $OUT
LOG = OUT / "gpu.log"  # all that the parts print
# HAM10000's training photos of each diagnosis; balanced, they are 35,337 observations.
TRAINING_PHOTOS = {
    "akiec": 272,
    "bcc": 450,
    "bkl": 941,
    "df": 101,
    "mel": 1029,
    "nv": 5101,
    "vasc": 119,
}
FEW = {"cuda": 640, "cpu": 64}  # observations of the short trainings
ROUNDS = 4  # of the comparison with the bare network
MATRIX = {"cuda": 8192, "cpu": 2048}  # side of the matrices whose product measures the chip
# Seconds that each part may take, for each network. The recipe gets what the parts after it leave.
LIMITS = {"data": 150, "smoke": 90, "limits": 40, "steps": 90, "tests": 150, "recipe": 400}
LIMITS |= {"evaluate": 90, "speed": 110, "several": 120}
ALONE = {"data", "limits", "tests", "evaluate"}  # run once, not for each network
Found = dict[str, Any]


class Deadline:
    """The time that is left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def left(self, limit: float = float("inf")) -> float:
        """Seconds, at least one, at most `limit`."""
        return max(1.0, min(limit, self._end - time.monotonic()))


def environment_of(folder: Path) -> dict[str, str]:
    """Make this project importable in a folder, beside what is importable here."""
    known = os.environ.get("PYTHONPATH", "")
    paths = os.pathsep.join([str(ROOT), known] if known else [str(ROOT)])
    return {**os.environ, "PYTHONPATH": paths, "LESIONS_CACHE": str(folder)}


def stage(folder: Path, name: str, *arguments: str, timeout: float, **environment: str) -> str:
    """Run a stage in a folder; return what it printed, which is in LOG too, as it comes.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    return run(command, folder, timeout, **environment)


def run(command: list[str], folder: Path, timeout: float, **environment: str) -> str:
    """Run a command as `stage` does."""
    with LOG.open("a+") as log:
        log.write(f"\n$ {' '.join(command[1:])}\n")
        log.flush()
        start = log.tell()
        done = subprocess.run(
            command,
            cwd=folder,
            env={**environment_of(folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        log.seek(start)
        output = log.read()
    if done.returncode:
        raise RuntimeError(f"{command[2]}: {output[-2000:]}")
    return output


def set_params(folder: Path, params: Params, **changes: object) -> None:
    """Write params.yaml."""
    dataset = str((ROOT / params.dataset).resolve())
    values = {**params.model_dump(), "dataset": dataset, **changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


def prepare(folder: Path, params: Params, photos: Path | None, deadline: Deadline) -> Found:
    """Fill data/ with what training reads: from real photos, or from synthetic ones."""
    start = time.perf_counter()
    if photos:
        # The stages run in another folder.
        pairs = str((ROOT / params.same_lesion).resolve())
        left_out = str((ROOT / params.leave_out).resolve())
        source = str(photos.resolve())
        places = {"source": source, "same_lesion": pairs, "leave_out": left_out}
        set_params(folder, params, **places, weights="random")
        for name in ("download", "resize", "split", "balance"):
            stage(folder, name, timeout=deadline.left(LIMITS["data"]))
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
        val_dx = np.resize(list(TRAINING_PHOTOS), len(ids) - total)
        val = pd.DataFrame({"image_id": ids[total:], "lesion_id": ids[total:], "dx": val_dx})
        write_csv(folder / "data/split/val.csv", val)
        balanced, _ = balance(train, list(TRAINING_PHOTOS), params.balance)
        write_csv(folder / "data/balanced/train.csv", balanced)
    rows = pd.read_csv(folder / "data/balanced/train.csv")
    return {
        "photos": "real" if photos else "synthetic",
        "observations": len(rows),
        "seconds": time.perf_counter() - start,
    }


@contextmanager
def few_observations(folder: Path, few: int) -> Iterator[None]:
    """Use every n-th observation only, `few` in all."""
    path = folder / "data/balanced/train.csv"
    everything = path.read_bytes()
    rows = pd.read_csv(path)
    write_csv(path, rows.iloc[:: max(1, len(rows) // few)][:few])
    try:
        yield
    finally:
        path.write_bytes(everything)


def tests(folder: Path, deadline: Deadline) -> Found:
    """Run the tests that need a GPU, without the plug-ins that pyproject.toml asks for."""
    options = ["-c", os.devnull, "--rootdir", str(ROOT), "-o", "pythonpath=. tests"]
    options += ["-W", "ignore", "--durations", "10", "-rA"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    files = ["tests/training/test_gpu.py"]
    output = run([*command, *options, *files], ROOT, deadline.left(LIMITS["tests"]))
    return {"last_lines": output.splitlines()[-20:]}


def smoke(folder: Path, params: Params, model: str, deadline: Deadline) -> Found:
    """Train an epoch of a few observations twice, and compare the model files."""
    set_params(folder, params, epochs=1, weights="random")
    digests, seconds = [], []
    with few_observations(folder, FEW.get(hardware.pick_device(params.device).type, 64)):
        for _ in range(2):
            start = time.perf_counter()
            stage(folder, "train", model, timeout=deadline.left(LIMITS["smoke"]))
            seconds.append(time.perf_counter() - start)
            file = folder / f"models/{model}.safetensors"
            digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
            file.unlink()  # `evaluate` is to find those of the whole recipe only
    same = digests[0] == digests[1]
    return {"same": same, "sha256": digests[0][:16], "seconds_of_a_run": seconds}


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


def steps(folder: Path, params: Params, model: str, deadline: Deadline) -> Found:
    """Take a step apart, in another process: a failed capture spoils a process for CUDA."""
    command = [sys.executable, "-m", "benchmarks.steps", model]
    options = ["--device", params.device, "--image-size", str(params.image_size)]
    start = LOG.stat().st_size if LOG.exists() else 0
    failure: Exception | None = None
    try:
        run([*command, *options], ROOT, deadline.left(LIMITS["steps"]))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        failure = error
    with LOG.open() as log:
        log.seek(start)
        lines = [line for line in log if line.startswith(f'{{"{model}"')]
    found: Found = {}
    for line in lines:
        found |= json.loads(line)[model]
    if failure:
        found["failed"] = str(failure)[-1500:]
    return found


def speed(folder: Path, params: Params, model: str, used: hardware.Hardware) -> Found:
    """Compare training with the bare network and inference with bare inference."""
    images = np.load(folder / "data/resized/images.npy", mmap_mode="r")
    (folder / "jpeg").mkdir(exist_ok=True)
    paths = throughput.encode(folder / "jpeg")
    found = throughput.model(model, images, paths, params, used, ROUNDS)
    network = build(params.network(model), len(TRAINING_PHOTOS), "random", 0)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 3, params.image_size, params.image_size))
    # Backward computes the gradient of the inputs and of the weights: twice as much as forward.
    found["gflop_per_photo"] = 3 * counter.get_total_flops() / 1e9
    if used.device.type == "cuda":
        torch.cuda.empty_cache()  # for the processes that follow
    return found


def recipe(folder: Path, params: Params, model: str, seconds: float, imagenet: list[str]) -> Found:
    """Train the whole recipe; if the time is over first, extrapolate from the epochs so far."""
    weights = {name: "imagenet" if name in imagenet else "random" for name in params.networks}
    set_params(folder, params, weights=weights)
    written = folder / f"plots/{model}/history.csv"  # after every epoch
    written.unlink(missing_ok=True)
    start, finished = time.perf_counter(), True
    try:
        stage(folder, "train", model, timeout=seconds)
    except subprocess.TimeoutExpired:
        finished = False
    wall = time.perf_counter() - start
    if not written.exists():
        raise RuntimeError(f"no epoch in {seconds:.0f} s")
    history = pd.read_csv(written)
    # The history has no time for the start, the checkpoints and the end; the wall clock has.
    share = len(history) / params.epochs
    found = {
        "finished": finished,
        "epochs_measured": len(history),
        "minutes": wall / 60 if finished else wall / share / 60,
        "minutes_of_all_epochs": float(history["seconds"].sum()) / share / 60,
        "first_epoch_seconds": float(history["seconds"].iloc[0]),
        "epoch_seconds": float(history["seconds"].iloc[1:].median()),
        "photos_per_second": float(history["photos_per_second"].iloc[1:].median()),
        "val_weighted_f1": history["val_weighted_f1"].tolist(),
    }
    if finished:
        shutil.copy(written, OUT / f"{model}-history.csv")
        found["val"] = json.loads((folder / f"metrics/val/{model}.json").read_text())
    return found


def evaluate(folder: Path, deadline: Deadline) -> Found:
    """Evaluate both networks on the test photos, heat maps included; needs captum."""
    start = time.perf_counter()
    stage(folder, "evaluate", timeout=deadline.left(LIMITS["evaluate"]))
    found: Found = {"seconds": time.perf_counter() - start}
    for file in sorted((folder / "metrics/test").glob("*.json")):
        found[file.stem] = json.loads(file.read_text())
    return found


def several(folder: Path, params: Params, model: str, deadline: Deadline) -> Found:
    """Train in one process and in one per device, two epochs each; compare the second."""
    on_gpu = params.device != "cpu" and torch.cuda.is_available()
    count = torch.cuda.device_count() if on_gpu else 2
    if count < 2:
        return {"devices": count}
    rates, losses = [], []
    with few_observations(folder, FEW["cuda" if on_gpu else "cpu"]):
        for devices in (1, count):
            set_params(folder, params, epochs=2, devices=devices, weights="random")
            # On a CPU, each process has one thread.
            limit = deadline.left(LIMITS["several"])
            stage(folder, "train", model, timeout=limit, OMP_NUM_THREADS="1")
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
    kinds = {"smoke", "recipe", "speed", "several"}
    models = [name for name in found if isinstance(found[name], dict) and kinds & set(found[name])]
    rows = {
        "training / bare network, goal ≥ .95": ("speed", "ours_vs_ceiling", "{:.2f}"),
        "training / original loop": ("speed", "ours_vs_reference", "{:.1f}"),
        "augmentation / step, goal ≤ .05": ("speed", "augment_share", "{:.3f}"),
        "evaluation / bare inference, goal ≥ .9": ("speed", "evaluate_vs_inference", "{:.2f}"),
        "photos/s, training": ("speed", "ours_photos_per_second", "{:,.0f}"),
        "photos/s, evaluation": ("speed", "evaluation_photos_per_second", "{:,.0f}"),
        "share of the chip's measured arithmetic": ("speed", "share_of_limit", "{:.0%}"),
        "whole recipe, minutes, goal < 3": ("recipe", "minutes", "{:.1f}"),
        "all epochs of it, minutes": ("recipe", "minutes_of_all_epochs", "{:.1f}"),
        "photos/s of an epoch": ("recipe", "photos_per_second", "{:,.0f}"),
        "epochs measured": ("recipe", "epochs_measured", "{}"),
        "two runs give the same bytes": ("smoke", "same", "{}"),
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


def attempt(found: Found, name: str, part: Callable[[], Found], title: str = "") -> None:
    """Run one part, and print its result at once; a failure is a result too."""
    start = time.perf_counter()
    try:
        found[name] = part()
    except Exception as error:  # so that the other parts run
        found[name] = {"failed": f"{type(error).__name__}: {error}"[-2500:]}
        traceback.print_exc()
    found[name]["took"] = round(time.perf_counter() - start, 1)
    print(json.dumps({f"{title}{name}": found[name]}), flush=True)


def main(
    photos: Annotated[
        Path | None, typer.Option(help="A folder as for `source` in params.yaml.")
    ] = None,
    device: str = "auto",
    image_size: int = 224,
    minutes: Annotated[float, typer.Option(help="About how long it may take.")] = 8.5,
    parts: Annotated[str, typer.Option(help="Which parts, in this order.")] = ",".join(LIMITS),
    folder: Annotated[
        Path | None, typer.Option(help="Where to work; what `data` made there is used again.")
    ] = None,
    imagenet: Annotated[
        list[str], typer.Option(help="A network whose recipe starts from ImageNet weights.")
    ] = [],  # noqa: B006 (typer needs a list)
) -> None:
    """Measure all that only a GPU can show; write gpu.json and gpu.log, in $OUT if that is set."""
    deadline = Deadline(minutes)
    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(update={"device": device, "image_size": image_size})
    used = hardware.set_up(device, params.precision, params.deterministic)
    name = hardware.describe_device(used.device)
    found: Found = {"device": name, "torch": torch.__version__, "precision": used.precision}
    print(f"{name}, torch {torch.__version__}, {used.precision}", flush=True)
    place = folder or Path(tempfile.mkdtemp())
    place.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in parts.split(",") if part]
    if unknown := set(chosen) - set(LIMITS):
        raise typer.BadParameter(f"unknown parts: {', '.join(sorted(unknown))}")
    reserve = 40 if "evaluate" in chosen else 0  # seconds that the recipes leave
    alone: dict[str, Callable[[], Found]] = {
        "data": partial(prepare, place, params, photos, deadline),
        "limits": partial(limits, used),
        "tests": partial(tests, place, deadline),
        "evaluate": partial(evaluate, place, deadline),
    }
    both = {"smoke": smoke, "steps": steps, "several": several}
    for part in chosen:
        if part == "data" and (place / "data/balanced/train.csv").exists():
            continue
        if part in ALONE:
            attempt(found, part, alone[part])
            write_text(OUT / "gpu.json", json.dumps(found, indent=2) + "\n")
            continue
        for number, model in enumerate(params.networks):
            results: Found = found.setdefault(model, {})
            if part == "recipe":
                left = max(1.0, deadline.left() - reserve) / (len(params.networks) - number)
                work = partial(recipe, place, params, model, min(left, LIMITS["recipe"]), imagenet)
            elif part == "speed":
                work = partial(speed, place, params, model, used)
            else:
                work = partial(both[part], place, params, model, deadline)
            if deadline.left() > 5:  # `speed` runs in this process, where nothing can stop it
                attempt(results, part, work, f"{model} ")
            write_text(OUT / "gpu.json", json.dumps(found, indent=2) + "\n")
    for model in params.networks:
        speeds = found.get(model, {}).get("speed", {})
        if "gflop_per_photo" in speeds and "tflops" in found.get("limits", {}):
            tflops = speeds["ours_photos_per_second"] * speeds["gflop_per_photo"] / 1000
            speeds["share_of_limit"] = tflops / found["limits"]["tflops"]
    write_text(OUT / "gpu.json", json.dumps(found, indent=2) + "\n")
    print(f"\n{name}, torch {torch.__version__}, {used.precision}, {image_size} px\n")
    print(table(found))
    if folder is None:
        shutil.rmtree(place)
    if "failed" in json.dumps(found):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
