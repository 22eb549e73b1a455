"""Trainings of one network with other parameters, outside DVC: for mistakes and shortcut."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from ruamel.yaml import YAML

from lesions.common.errors import LesionsError
from lesions.common.params import Params, load_params

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
        place[key] = YAML(typ="safe").load(change.partition("=")[2])
    values["same_lesion"] = str((ROOT / str(values["same_lesion"])).resolve())
    if (source := Path(str(values["source"])).expanduser()).is_dir():
        values["source"] = str(source.resolve())
    try:
        return Params(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise LesionsError(f"--set-param {name}: {first['msg']}.") from None


def train(folder: Path, params: Params, model: str) -> Path:
    """Run the stages up to training in a folder of their own; skip it if that was done before.

    Photos are decoded once, and shared.

    Returns:
        The folder, which has data/, models/, metrics/ and plots/.
    """
    name = f"{params.holdout}-{params.seed}"
    place = folder / (f"{name}-shortcut" if params.shortcut else name)
    written = place / "params.yaml"
    if (place / f"models/{model}.safetensors").exists() and load_params(written) == params:
        return place
    shutil.rmtree(place, ignore_errors=True)  # what other parameters have left
    (place / "data").mkdir(parents=True)
    written.write_text(yaml.safe_dump(params.model_dump()))
    photos = f"{params.source} {params.sample_seed} {params.image_size}"
    shared = folder / f"photos-{hashlib.sha256(photos.encode()).hexdigest()[:12]}"
    for name in ("raw", "resized"):
        (shared / name).mkdir(parents=True, exist_ok=True)
        (place / "data" / name).symlink_to((shared / name).resolve())
    done = (shared / "resized/images.npy").exists()
    for stage in ("split", "balance") if done else ("download", "resize", "split", "balance"):
        run(place, f"stages.{stage}")
    run(place, "stages.train", model)
    return place


def run(place: Path, module: str, *arguments: str) -> None:
    """Run a stage in a folder; its output is shown."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    if subprocess.run(command, cwd=place, env=environment, check=False).returncode:
        sys.exit(f"{module} failed in {place}. Fix the cause and run this again.")
