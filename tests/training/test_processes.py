import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT, change_params, copy_inputs
from safetensors.torch import load_file

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.dataset.photos import PhotoArray
from lesions.networks.batches import split_into_batches
from lesions.training import processes
from lesions.training.loop import check_batch_size
from lesions.training.processes import Processes

TOGETHER = {
    **os.environ,
    "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/training'}",
    "OMP_NUM_THREADS": "1",
}


def test_parts_hold_everything_once() -> None:
    rows = np.arange(23)
    parts = [Processes(rank, 4).shard(rows) for rank in range(4)]
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert Processes().shard(rows).tolist() == rows.tolist()
    assert Processes().all_gather(rows) is rows
    assert Processes().broadcast("x") == "x"


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_process_has_two_rows_of_every_batch(count: int) -> None:
    for n in range(64, 200):
        steps = split_into_batches(np.arange(n), 32, 2 * count)
        assert np.concatenate(steps).tolist() == list(range(n))
        for step in steps:
            assert all(len(Processes(rank, count).shard(step)) >= 2 for rank in range(count))


def test_a_batch_is_shared_equally_or_refused() -> None:
    check_batch_size(32, 1)
    check_batch_size(32, 16)
    for count in (3, 32):
        with pytest.raises(LesionsError, match=f"batch_size 32 cannot be shared by {count}"):
            check_batch_size(32, count)


def test_how_many_processes() -> None:
    cpu = torch.device("cpu")
    assert processes.count_processes(1, cpu) == 1
    assert processes.count_processes("all", cpu) == 1
    with pytest.raises(LesionsError, match="devices: 4096, but"):
        processes.count_processes(4096, cpu)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(
    noise: PhotoArray,
    noise_table: pd.DataFrame,
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "images.npy", noise.images)
    write_csv(tmp_path / "image_ids.csv", noise_table[["image_id"]])
    for command in (
        ["-m", "ranks", str(tmp_path)],
        [
            "-c",
            f"from lesions.training import processes; processes.launch(2, 'ranks', '{tmp_path}')",
        ],
    ):
        done = subprocess.run(
            [sys.executable, *command], env=TOGETHER, check=True, capture_output=True, text=True
        )
        assert done.stdout.count("said by 0") == 1
        assert done.stdout.count("mobilenetv2 epoch 1/1: loss") == 1
        assert "said by 1" not in done.stdout
    alone, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")
    )
    # Of the requests, the second is the epoch's training and the third its validation.
    for step in (1, 2):
        parts = [first["requests"][step], second["requests"][step]]
        assert sorted(parts[0] + parts[1]) == sorted(alone["requests"][step])
        assert abs(len(parts[0]) - len(parts[1])) <= 1
    for key, value in alone["history"][0].items():
        if "second" not in key:
            assert first["history"][0][key] == pytest.approx(value, abs=1e-5), key
    one, two, other = (
        load_file(tmp_path / f"{name}.safetensors") for name in ("1-0", "2-0", "2-1")
    )
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-5, rtol=1e-5)
        assert torch.equal(two[key], other[key]), key


@pytest.fixture
def workplace(noise: PhotoArray, noise_table: pd.DataFrame, tmp_path: Path) -> Path:
    """A folder in which stage train can run, on two processes."""
    copy_inputs(tmp_path)
    change_params(
        tmp_path / "params.yaml", image_size=32, epochs=6, batch_size=4, devices=2, device="cpu"
    )
    (tmp_path / "data/resized").mkdir(parents=True)
    np.save(tmp_path / "data/resized/images.npy", noise.images)
    write_csv(tmp_path / "data/resized/image_ids.csv", noise_table[["image_id"]])
    write_csv(tmp_path / "data/balanced/train.csv", noise_table.iloc[:21])
    write_csv(tmp_path / "data/split/val.csv", noise_table.iloc[21:])
    return tmp_path


def launched(folder: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train", "mobilenetv2"],
        cwd=folder,
        env={**TOGETHER, "LESIONS_CACHE": str(folder / "cache"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(pid: int) -> list[int]:
    """The processes that one has started and that live."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("victim", ["a process", "the launcher"])
def test_a_kill_ends_all_and_the_next_run_ends_the_same(workplace: Path, victim: str) -> None:
    model = workplace / "models/mobilenetv2.safetensors"
    cache = workplace / "cache/checkpoints"
    quiet, _ = launched(workplace).communicate()
    expected = model.read_bytes()
    assert not list(cache.iterdir())
    model.unlink()
    killed = launched(workplace)
    while not list(cache.glob("mobilenetv2-*.checkpoint")):
        assert killed.poll() is None
        time.sleep(0.01)
    ranks = children(killed.pid)
    assert len(ranks) == 2
    os.kill(ranks[1] if victim == "a process" else killed.pid, signal.SIGKILL)
    said, _ = killed.communicate()
    if victim == "a process":
        assert killed.returncode == 1
        assert "error: process 1 of 2 ended with exit code -9, so all were ended." in said
        assert "Traceback" not in said
    for _ in range(100):
        if not any(map(alive, ranks)):
            break
        time.sleep(0.1)
    assert not any(map(alive, ranks))
    assert not model.exists()
    assert "resumes after epoch" not in quiet
    again, _ = launched(workplace).communicate()
    assert "resumes after epoch" in again, again
    assert model.read_bytes() == expected


def test_a_batch_that_does_not_divide_stops_the_stage(workplace: Path) -> None:
    change_params(workplace / "params.yaml", batch_size=5)
    said, _ = launched(workplace).communicate()
    assert said.startswith("error: batch_size 5 cannot be shared by 2 devices")
    assert not (workplace / "models").exists()


def test_weights_that_cannot_be_loaded_are_reported_once(workplace: Path) -> None:
    change_params(workplace / "params.yaml", weights="imagenet")
    file = workplace / "hub/checkpoints/mobilenet_v2-b0353104.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no weights")
    said, _ = launched(workplace, TORCH_HOME=str(workplace)).communicate()
    assert said.startswith(f"error: {file}: not a whole weights file")
    assert said.count("\n") == 1
