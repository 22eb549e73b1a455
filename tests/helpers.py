"""What tests share: tiny made-up data, and the project run elsewhere."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from typer.testing import CliRunner

from lesions.commands import COMMANDS
from lesions.common.artifacts import write_csv
from lesions.common.errors import command_line
from lesions.common.params import check_params
from lesions.dataset.description import load_description
from lesions.evaluation.predictions import Predictions
from lesions.networks.architectures import build
from lesions.networks.classifier import Classifier
from lesions.networks.hardware import Hardware
from lesions.networks.model_card import ModelCard
from lesions.scoring.fitted import Fitted
from lesions.sources import sample

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
FP32 = Hardware(CPU, "fp32")
# The published parameters: tests use them, whatever params.yaml says.
PUBLISHED: dict[str, Any] = {
    "dataset": "datasets/ham10000.yaml",
    "source": "sample",
    "sample_seed": 0,
    "sample_size": 1600,
    "external_tests": {},
    "image_size": 224,
    "split_seed": 0,
    "val_share": 0.1,
    "test_share": 0.1,
    "same_lesion": "datasets/ham10000_same_lesion.csv",
    "leave_out": "datasets/leave_out.csv",
    "holdout": "once-photographed",
    "balance": "multiply",
    "networks": {
        "resnet50": {"title": "ResNet50", "torchvision": "resnet50", "features": "layer4"},
        "mobilenetv2": {
            "title": "MobileNetV2",
            "torchvision": "mobilenet_v2",
            "features": "features",
        },
    },
    "weights": "auto",
    "seed": 0,
    "lr": 0.001,
    "schedule": "constant",
    "batch_size": 32,
    "epochs": 10,
    "keep": "best",
    "head": "trained",
    "augment": {
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "rotation": 20,
        "brightness": 0.1,
        "contrast": 0.1,
        "saturation": 0,
        "hue": 0.1,
    },
    "shortcut": 0,
    "decision": "most-probable",
    "views": 1,
    "ensemble": False,
    "precision": "auto",
    "device": "auto",
    "devices": 1,
    "deterministic": True,
}
PARAMS = check_params(PUBLISHED)
DATASET = load_description(str(ROOT / "datasets/ham10000.yaml"))
CODES = DATASET.classes
SUBSPACE = np.eye(3, 1280, dtype=np.float32)  # a mean and two directions
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


def metadata_of(lesions: dict[str, list[int]]) -> pd.DataFrame:
    """Make up metadata: for each diagnosis, how many photos each of its lesions has."""
    rows = [
        (f"L_{dx}_{lesion}", f"P_{dx}_{lesion}_{photo}", dx)
        for dx, sizes in lesions.items()
        for lesion, size in enumerate(sizes)
        for photo in range(size)
    ]
    table = pd.DataFrame(rows, columns=["lesion_id", "image_id", "dx"])
    return table.assign(dx_type="histo", age="50.0", sex="male", localization="back")[
        list(sample.COLUMNS)
    ]


def generate_raw(seed: int, raw: Path, lesions: dict[str, tuple[int, int, int]]) -> None:
    """Write a data/raw of synthetic photos, as the stage download does."""
    (raw / "images").mkdir(parents=True)
    write_csv(raw / "metadata.csv", sample.generate_photos(seed, raw / "images", lesions))


def predictions_of(
    probabilities: np.ndarray,
    labels: np.ndarray,
    lesions: list[str] | None = None,
    **traits: Any,
) -> Predictions:
    """Make up predictions: photo P0, P1, ..., each of its own lesion by default."""
    names = [f"L{row}" for row in range(len(labels))]
    photos = pd.DataFrame(
        {
            "image_id": [f"P{row}" for row in range(len(labels))],
            "lesion_id": lesions or names,
            "dx": [CODES[label] for label in labels],
        }
    ).assign(**traits)
    predicted = np.asarray(probabilities.argmax(axis=1))
    return Predictions(DATASET, photos, labels, probabilities, probabilities, predicted)


def random_predictions(n: int = 300, seed: int = 0) -> Predictions:
    """Make up predictions that are better than chance; every diagnosis occurs."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(7), np.random.default_rng(0).integers(0, 7, n - 7)])
    probabilities = rng.dirichlet(np.ones(7), n) + np.eye(7)[labels] * 0.2
    return predictions_of(probabilities / probabilities.sum(axis=1, keepdims=True), labels)


def network_of(name: str, seed: int = 0) -> torch.nn.Module:
    """Build a network of the published table from random weights."""
    return build(PARAMS.networks[name], len(CODES), "random", seed)


def card_of(name: str = "mobilenetv2", **changes: Any) -> ModelCard:
    """Make up a model card; `changes` are of the card or of what was fitted."""
    groups = changes.get("dataset", DATASET).groups
    fitted: dict[str, Any] = {
        "temperature": 1.0,
        "bias": (0.0,) * len(CODES),
        "prevalence": (round(1 / len(CODES), 6),) * len(CODES),
        "cases": dict.fromkeys(groups, 20),
        "operating_points": (),
        "confidence_threshold": 0.3,
        "distance_threshold": 0.5,
    }
    fitted |= {key: changes.pop(key) for key in list(changes) if key in fitted}
    values: dict[str, Any] = {
        "name": name,
        "network": PARAMS.networks[name],
        "dataset": DATASET,
        "image_size": 32,
        "mean": (0.7, 0.5, 0.5),
        "std": (0.1, 0.2, 0.2),
        "fitted": tuple(Fitted(views=views, **fitted) for views in (1, 4)),
        "weights": "random",
        "seed": 0,
        "recipe": PARAMS.recipe(),
        "observations": dict.fromkeys(CODES, 9),
        "precision": "fp32",
        "device": "cpu",
        "versions": {"torch": "2"},
    }
    return ModelCard(**{**values, **changes})


def classifier_of(name: str = "mobilenetv2", **changes: Any) -> Classifier:
    """Make a classifier with random weights on the CPU, in fp32."""
    return Classifier(network_of(name).eval(), card_of(name, **changes), FP32)


def change_params(path: Path, **changes: object) -> None:
    """Overwrite values in a params.yaml."""
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**values, **changes}, sort_keys=False))


def copy_inputs(folder: Path) -> None:
    """Write the published params.yaml and datasets/ to a folder, for stages that run there."""
    (folder / "params.yaml").write_text(yaml.safe_dump(PUBLISHED, sort_keys=False))
    shutil.copytree(ROOT / "datasets", folder / "datasets")


def git(project: Path, *arguments: str) -> str:
    """Run git and return what it printed."""
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=project, check=True, capture_output=True, text=True
    ).stdout.strip()


def copy_project(target: Path, **changes: object) -> Path:
    """Make a git repository of this working tree elsewhere, with other parameters."""
    names = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    change_params(target / "params.yaml", **{**PUBLISHED, **changes})
    git(target, "init", "--quiet")
    git(target, "config", "user.name", "test")
    git(target, "config", "user.email", "test@example.com")
    commit(target, "as it is")
    return target


def commit(project: Path, message: str) -> None:
    """Commit everything."""
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--allow-empty", "--message", message)


WARM: Path | None = None  # the folder of a `python` that starts at once, if there is one


def run(project: Path, *command: str, fails: bool = False) -> str:
    """Run a command with this environment's programs and return what it printed."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if WARM is not None:
        programs = f"{WARM}:{programs}"
    result = subprocess.run(
        command,
        cwd=project,
        env={**os.environ, "PATH": programs, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=500,
    )
    assert (result.returncode != 0) == fails, result.stdout
    return result.stdout


def dvc(project: Path, *arguments: str, fails: bool = False) -> str:
    """Run DVC and return what it printed."""
    return run(project, sys.executable, "-m", "dvc", *arguments, fails=fails)


class Ended(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def invoke(command: Callable[..., None] | None, *arguments: str, folder: Path) -> Ended:
    """Run a stage's function, or `lesions` by default, in this process: no interpreter starts."""
    commands = [command] if command else list(COMMANDS)
    with contextlib.chdir(folder):
        done = CliRunner().invoke(command_line(*commands), arguments, catch_exceptions=False)
    return Ended(done.exit_code, done.stdout, done.stderr)


def python(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def serious_findings(page: "Page") -> list[str]:
    """Check a page for accessibility with axe-core: its serious and critical findings."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
