"""Scaling: what a second process brings, and whether ten times the photos cost ten times the time.

`python -m benchmarks.scaling` trains both networks with one thread in one process and in two, in
turns; then resizes 10,000 and 100,000 photos of 600×450 and brings them to the network, each in a
process of its own. It takes about 15 minutes on two cores and 20 GB of disk.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Annotated

import pandas as pd
import typer

from benchmarks.throughput import encode, input_side, project
from lesions.artifacts import write_csv
from lesions.networks import ARCHITECTURES
from lesions.params import load_params
from lesions.photos import PhotoArray, resize

ROUNDS = 3
EPOCHS = 3  # the first one warms up
TIMES = 10  # how many more photos the larger set has


def rate(folder: Path, name: str, devices: int) -> float:
    """Train with a thread a process: photos a second in the last epoch."""
    file = folder / "params.yaml"
    params = load_params(file).model_copy(
        update={"device": "cpu", "devices": devices, "epochs": EPOCHS}
    )
    file.write_text(params.model_dump_json())
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", "stages.train", name]
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
    return float(pd.read_csv(folder / f"plots/{name}/history.csv")["images_per_second"].iloc[-1])


def resized(paths: list[Path], count: int, size: int, folder: Path) -> tuple[float, int]:
    """Resize `count` photos, those given over and over: seconds a photo, bytes held at most."""
    folder.mkdir(parents=True)
    photos = [(str(number), paths[number % len(paths)].read_bytes) for number in range(count)]
    start = time.perf_counter()
    resize(photos, size, folder / "images.npy")
    seconds = time.perf_counter() - start
    ids = pd.DataFrame({"image_id": [f"P{number:07}" for number in range(count)]})
    write_csv(folder / "image_ids.csv", ids)
    lines = Path("/proc/self/status").read_text().splitlines()
    most = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return seconds / count, 1024 * most


def main(
    photos: Annotated[int, typer.Option(min=100, help="Of the larger set.")] = 100_000,
) -> None:
    """Measure processes side by side, then the smaller and the larger set."""
    params = load_params()
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        paths = encode(base)
        resized(paths, len(paths), params.image_size, base / "small")
        few = PhotoArray(base / "small").images
        work = project(base / "work", few, 4 * params.batch_size, params)
        for name in ARCHITECTURES:
            rates = [(rate(work, name, 1), rate(work, name, 2)) for _ in range(ROUNDS)]
            gains = [two / one for one, two in rates]
            print(
                f"{name}: {median(one for one, _ in rates):.1f} photos/s in one process, "
                f"{median(two for _, two in rates):.1f} in two: {median(gains):.2f} times "
                f"({min(gains):.2f} to {max(gains):.2f})",
                flush=True,
            )
        for count in (photos // TIMES, photos):
            data = base / "large" / "data" / "resized"
            # In processes of their own, for the most memory ever held is asked for.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                seconds, held = pool.submit(resized, paths, count, params.image_size, data).result()
            print(
                f"resize {count}: {1000 * seconds:.2f} ms a photo, {held / 1e6:.0f} MB", flush=True
            )
            (base / "large" / "params.yaml").write_text(params.model_dump_json())
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                seconds, held = pool.submit(input_side, base / "large").result()
            print(
                f"training's input {count}: {1000 * seconds:.2f} ms a photo, {held / 1e6:.0f} MB",
                flush=True,
            )
            shutil.rmtree(data)


if __name__ == "__main__":
    typer.run(main)
