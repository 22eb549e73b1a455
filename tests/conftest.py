"""What tests share: they draw their own tiny data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from lesions import sample
from lesions.answers import Answers
from lesions.diagnoses import CODES
from lesions.metadata import COLUMNS
from lesions.params import Params, load_params

ROOT = Path(__file__).parent.parent


def metadata_of(lesions: dict[str, list[int]]) -> pd.DataFrame:
    """Make up metadata: for each diagnosis, how many photos each of its lesions has."""
    rows = [
        (f"L_{dx}_{lesion}", f"P_{dx}_{lesion}_{photo}", dx)
        for dx, sizes in lesions.items()
        for lesion, size in enumerate(sizes)
        for photo in range(size)
    ]
    table = pd.DataFrame(rows, columns=["lesion_id", "image_id", "dx"])
    return table.assign(dx_type="histo", age="50.0", sex="male", localization="back")[list(COLUMNS)]


def answers_of(
    probabilities: np.ndarray,
    labels: np.ndarray,
    lesions: list[str] | None = None,
    **traits: Any,
) -> Answers:
    """Make up answers: photo P0, P1, ..., each of a lesion of its own unless told otherwise."""
    names = [f"L{row}" for row in range(len(labels))]
    photos = pd.DataFrame(
        {
            "image_id": [f"P{row}" for row in range(len(labels))],
            "lesion_id": lesions or names,
            "dx": [CODES[label] for label in labels],
        }
    ).assign(**traits)
    return Answers(photos, labels, probabilities, probabilities)


def random_answers(n: int = 300, seed: int = 0) -> Answers:
    """Make up answers that are better than chance, with every diagnosis among the truths."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(7), np.random.default_rng(0).integers(0, 7, n - 7)])
    probabilities = rng.dirichlet(np.ones(7), n) + np.eye(7)[labels] * 0.2
    return answers_of(probabilities / probabilities.sum(axis=1, keepdims=True), labels)


def change_params(path: Path, **changes: object) -> None:
    """Overwrite values in a params.yaml."""
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**values, **changes}, sort_keys=False))


def copy_project(target: Path, **changes: object) -> Path:
    """Make a git repository of this working tree elsewhere, with other parameters."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    change_params(target / "params.yaml", **changes)
    for command in (
        ["init", "--quiet"],
        ["config", "user.name", "test"],
        ["config", "user.email", "test@example.com"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "as it is"],
    ):
        subprocess.run(["git", *command], cwd=target, check=True)
    return target


@pytest.fixture
def params() -> Params:
    """The published parameters."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data/raw of 28 drawn photos, four lesions of each diagnosis; read it, leave it alone."""
    folder = tmp_path_factory.mktemp("drawn") / "raw"
    sample.draw(0, folder, dict.fromkeys(CODES, (4, 0, 0)))
    return folder


def dvc(project: Path, *arguments: str, fails: bool = False) -> str:
    """Run DVC and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=500,
    )
    assert (result.returncode != 0) == fails, result.stdout
    return result.stdout


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which the study, tiny, has run once and is committed."""
    folder = copy_project(tmp_path_factory.mktemp("project"), image_size=32, epochs=1)
    output = dvc(folder, "repro")
    assert "ERROR" not in output
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "results"], cwd=folder, check=True)
    return folder
