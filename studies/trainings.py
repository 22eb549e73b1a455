"""Trainings of one network with other parameters, outside DVC, for `shortcut` and `course`."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from lesions.common.params import Params, check_params, load_params
from lesions.common.yaml_files import parse_yaml
from lesions.dataset.metadata import read_pairs

PHOTOS = ("source", "sample_seed", "sample_size", "image_size")  # the parameters that make them
ROOT = Path(__file__).parent.parent
SetParam = Annotated[list[str] | None, typer.Option("--set-param", "-S", help="As in dvc exp run.")]


def read_params(changes: list[str], model: str) -> Params:
    """Read params.yaml of this repository, with changes, and one network.

    Raises:
        LesionsError: a key or value that is not allowed.
    """
    params = load_params(ROOT / "params.yaml")
    values = {**params.model_dump(), "networks": {model: params.network(model)}}
    if isinstance(params.weights, dict):
        values["weights"] = params.weights.get(model, "auto")
    for change in changes:
        *outer, key = change.partition("=")[0].split(".")
        place = values
        for name in outer:
            place = place.setdefault(name, {})
        place[key] = parse_yaml(change.partition("=")[2])
    # The stages run in other folders.
    for key in ("same_lesion", "leave_out", "dataset"):
        if values[key] == getattr(params, key):
            values[key] = str(ROOT / values[key])
        values[key] = str(Path(str(values[key])).expanduser().resolve())
    if (source := Path(str(values["source"])).expanduser()).is_dir():
        values["source"] = str(source.resolve())
    return check_params(values, Path("--set-param"))


def train(folder: Path, params: Params, model: str) -> Path:
    """Run the stages up to training in a folder of their own; skip it if that was done before.

    Photos are decoded once, and shared.

    Returns:
        The folder, which has data/, models/, metrics/ and plots/.
    """
    # The name depends on all that the result depends on: what is there need not be made again.
    listed = [read_pairs(Path(params.same_lesion)), Path(params.leave_out).read_text()]
    place = (
        folder / f"{model}-{params.holdout}-{params.seed}-{_digest(params.model_dump(), listed)}"
    )
    if (place / f"models/{model}.safetensors").exists():
        return place

    # The photos, for all trainings.
    photos = folder / f"photos-{_digest(*(getattr(params, key) for key in PHOTOS))}"
    if not (photos / "data/resized/images.npy").exists():
        prepare(photos, params)
        run(photos, "stages.download")
        run(photos, "stages.resize")

    prepare(place, params)
    for name in ("raw", "resized"):
        (place / "data" / name).symlink_to((photos / "data" / name).resolve())
    run(place, "stages.split")
    run(place, "stages.balance")
    run(place, "stages.train", model)
    return place


def prepare(place: Path, params: Params) -> None:
    """Make a folder for stages to run in, without what an interrupted run has left there."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "data").mkdir(parents=True)
    write_params(place, params)


def write_params(place: Path, params: Params) -> None:
    """Write the parameters of the stages that run in a folder."""
    (place / "params.yaml").write_text(yaml.safe_dump(params.model_dump()), encoding="utf-8")


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:8]


def run(place: Path, module: str, *arguments: str) -> str:
    """Run a stage in a folder; show what it prints, and return it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    lines = []
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        sys.exit(f"{module} failed in {place}. Fix the cause and run this again.")
    return "".join(lines)
