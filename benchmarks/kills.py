"""Kills: a stage that is killed at a random moment leaves whole outputs or none, never a half.

`python -m benchmarks.kills --kills 6`: each stage of dvc.yaml is started that many times, after
its outputs were removed, as DVC does, and killed (SIGKILL, with all its processes) at a random
moment. What it leaves must be absent, or the same bytes as an undisturbed run makes; the history of
a training may have fewer epochs. In the end `dvc repro` runs, killed trainings resume from their
checkpoints, and all bytes are compared.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.verify import SMALL, copy, outputs, run


def outs(stage: dict[str, Any]) -> list[str]:
    """List the files and folders that a stage writes."""
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def start(folder: Path, command: str) -> "subprocess.Popen[bytes]":
    """Start a stage in its own process group."""
    words = [sys.executable, *shlex.split(command)[1:]]
    env = {**os.environ, "PYTHONPATH": "."}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        words, cwd=folder, env=env, stdout=quiet, stderr=quiet, start_new_session=True
    )


def main(
    kills: Annotated[int, typer.Option(help="How often each stage is killed.")] = 6,
    seed: int = 0,
) -> None:
    """Kill every stage several times; compare what it leaves, and what a later run makes of it."""
    rng = np.random.default_rng(seed)
    done = halves = 0
    with tempfile.TemporaryDirectory() as name:
        folder = copy(Path(name) / "project", **SMALL)
        run(folder, "dvc", "repro", "--force")
        expected = outputs(folder)
        all_stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
        stages: dict[str, Any] = {k: v for k, v in all_stages.items() if "cmd" in v}
        for stage, what in stages.items():
            begun = time.perf_counter()
            start(folder, what["cmd"]).wait()
            takes = time.perf_counter() - begun
            landed = 0
            for _ in range(kills):
                for out in outs(what):
                    path = folder / out
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                process = start(folder, what["cmd"])
                try:
                    process.wait(timeout=rng.uniform(0, takes))
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    landed += 1
                left = {
                    file: digest
                    for file, digest in outputs(folder).items()
                    if any(file == out or file.startswith(f"{out}/") for out in outs(what))
                }
                wrong = [file for file in left if left[file] != expected.get(file)]
                for out in outs(what):  # a folder is whole or absent
                    if (folder / out).is_dir():
                        whole = {file for file in expected if file.startswith(f"{out}/")}
                        wrong += sorted(whole - set(left))
                halves += len(wrong)
                for file in wrong:
                    print(f"  half written: {file}")
            done += landed
            run(folder, "dvc", "repro", "--single-item", "--force", stage)
            print(f"{stage:20} takes {takes:5.1f} s, killed {landed} times", flush=True)
        found = outputs(folder)
        differing = [file for file in {*expected, *found} if expected.get(file) != found.get(file)]
        for file in differing:
            print(f"  differs: {file}")
    print(f"{done} kills over {len(stages)} stages, {halves} half-written, {len(differing)} differ")
    sys.exit(bool(halves or differing))


if __name__ == "__main__":
    typer.run(main)
