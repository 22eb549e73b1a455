"""The whole study, small, as a user runs it: dvc repro, experiments, metrics."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import change_params, dvc

from lesions import scoring
from lesions.comparison import FIGURES
from lesions.diagnoses import CODES, ISIC_COLUMNS

# One worker runs all that use the same small study.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("project")]

HEADLINE = [
    "accuracy",
    "balanced_accuracy",
    "weighted_f1",
    "macro_f1",
    "roc_auc",
    "melanoma_sensitivity",
]


def ran(output: str) -> list[str]:
    """Name the stages that DVC ran, not those it took from its run cache."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


TRAINING = ["train-resnet50", "train-mobilenetv2", "evaluate", "pictures"]


def test_results_are_there(project: Path) -> None:
    for model in ("resnet50", "mobilenetv2"):
        metrics = json.loads((project / f"metrics/{model}.json").read_text())
        assert list(metrics)[:6] == HEADLINE
        assert len(metrics) <= 8
        header = (project / f"plots/{model}/predictions.csv").read_text().splitlines()[0]
        assert header == ",".join(["image_id", "lesion_id", "actual", "predicted", *CODES])
        answered = pd.read_csv(project / f"plots/{model}/predictions.csv")
        tested = pd.read_csv(project / "data/split/test.csv")
        assert list(answered["image_id"]) == list(tested["image_id"])
        assert list(answered["actual"]) == list(tested["dx"])
        assert "## Results" in (project / f"models/{model}.md").read_text()
        assert len((project / f"plots/{model}/history.csv").read_text().splitlines()) == 2
        training = json.loads((project / f"metrics/training/{model}.json").read_text())
        assert list(training)[:3] == ["best_epoch", "val_loss", "val_weighted_f1"]
    for table in scoring.TABLES:
        assert set(pd.read_csv(project / f"plots/{table}.csv")["model"]) == {
            "ResNet50",
            "MobileNetV2",
        }
    assert list(pd.read_csv(project / "plots/comparison.csv")["figure"]) == list(FIGURES)
    pictures = list(project.glob("plots/**/*.png"))
    assert len(pictures) == 4
    assert all(picture.stat().st_size < 300_000 for picture in pictures)
    assert not list(project.glob("**/*.partial"))
    assert not list(project.glob("models/*checkpoint*"))


def test_git_holds_results_but_no_photos_and_no_weights(project: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=project, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert "metrics/resnet50.json" in listed
    assert "plots/mobilenetv2/history.csv" in listed
    assert "dvc.lock" in listed
    assert not [name for name in listed if name.endswith((".npy", ".safetensors"))]
    assert [name for name in listed if name.endswith(".jpg")] == ["docs/sample.jpg"]  # drawn
    assert [name for name in listed if name.startswith(("data/", "models/"))] == [
        "data/.gitkeep",
        "models/.gitkeep",
    ]


def test_second_repro_does_nothing(project: Path) -> None:
    assert ran(dvc(project, "repro")) == []


def test_metrics_and_plots_show(project: Path) -> None:
    shown = json.loads(dvc(project, "metrics", "show", "--json"))
    files = shown[""]["data"]
    assert set(files) == {
        f"metrics/{folder}{model}.json"
        for folder in ("", "external/", "training/")
        for model in ("resnet50", "mobilenetv2")
    }
    assert set(HEADLINE) <= set(files["metrics/resnet50.json"]["data"])
    dvc(project, "plots", "show")
    page = (project / "dvc_plots" / "index.html").read_text()
    for title in (
        "Loss",
        "Accuracy",
        "ResNet50: confusion",
        "ROC: each",
        "Reliability:",
        "Precision over",
    ):
        assert title in page


def test_experiments_run_what_they_must_and_come_back_without_training(project: Path) -> None:
    output = dvc(project, "exp", "run", "--name", "faster", "--set-param", "lr=0.01")
    assert ran(output) == TRAINING
    assert yaml.safe_load((project / "params.yaml").read_text())["lr"] == 0.01
    assert "metrics/training/resnet50.json" in dvc(project, "metrics", "diff")
    assert "faster" in dvc(project, "exp", "show", "--csv")
    # Back to the earlier value: everything comes from the run cache.
    assert ran(dvc(project, "exp", "run", "--set-param", "lr=0.001")) == []
    assert ran(dvc(project, "exp", "run", "--set-param", "seed=1")) == TRAINING
    assert ran(dvc(project, "exp", "run", "--set-param", "seed=0")) == []


def test_split_seed_runs_from_the_split_on(project: Path) -> None:
    try:
        output = dvc(project, "repro", "--dry")
        assert ran(output) == []
        change_params(project / "params.yaml", split_seed=1)
        assert ran(dvc(project, "repro", "--dry"))[0] == "split"
    finally:
        subprocess.run(["git", "checkout", "--quiet", "params.yaml"], cwd=project, check=True)


def test_two_at_once_harm_nothing(project: Path) -> None:
    change_params(project / "params.yaml", lr=0.002)
    command = [sys.executable, "-m", "dvc", "repro"]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with subprocess.Popen(
        command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as first:
        assert first.stdout
        said = iter(first.stdout.readline, "")
        assert any("Running stage 'train-resnet50'" in line for line in said)
        second = dvc(project, "repro", fails=True)
        assert "is busy" in second or "Unable to acquire lock" in second
        list(said)
    assert first.returncode == 0
    assert ran(dvc(project, "repro")) == []
    subprocess.run(["git", "checkout", "--quiet", "params.yaml"], cwd=project, check=True)
    assert ran(dvc(project, "repro")) == []


def test_external_set_is_scored_apart(project: Path, raw: Path, tmp_path: Path) -> None:
    metadata = pd.read_csv(raw / "metadata.csv")
    truth = pd.DataFrame({"image": metadata["image_id"]})
    for column in ISIC_COLUMNS:
        truth[column] = (metadata["dx"].str.upper() == column).astype(float)
    folder = tmp_path / "outside"
    shutil.copytree(raw / "images", folder)
    truth.to_csv(folder / "truth.csv", index=False)
    assert json.loads((project / "metrics/external/resnet50.json").read_text()) == {}
    output = dvc(project, "exp", "run", "--set-param", f"external_test={folder}")
    assert ran(output) == ["external", "evaluate"]
    metrics = json.loads((project / "metrics/external/resnet50.json").read_text())
    assert list(metrics) == list(json.loads((project / "metrics/resnet50.json").read_text()))
    answers = pd.read_csv(project / "data/submissions/resnet50.csv")
    assert list(answers.columns) == list(truth.columns)
    assert list(answers["image"]) == sorted(truth["image"])
    assert answers[list(ISIC_COLUMNS)].sum(axis=1).between(0.999, 1.001).all()
    assert ran(dvc(project, "exp", "run", "--set-param", "external_test=none")) == []


def test_a_failing_stage_says_why_and_leaves_what_was(project: Path) -> None:
    output = dvc(project, "exp", "run", "--set-param", "source=nowhere", fails=True)
    assert "error: source: 'nowhere' is no folder" in output
    assert "failed to reproduce 'download'" in output
    subprocess.run(["git", "checkout", "--quiet", "params.yaml"], cwd=project, check=True)
    assert ran(dvc(project, "repro")) == []
    assert len(list((project / "data/raw/images").iterdir())) > 50


def test_a_clone_pulls_results_and_another_repository_a_model(
    project: Path, raw: Path, tmp_path: Path
) -> None:
    assert ran(dvc(project, "repro")) == []
    dvc(project, "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    dvc(project, "push")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    shutil.copy2(project / ".dvc" / "config", clone / ".dvc" / "config")
    subprocess.run(["git", "checkout", "--quiet", ".dvc/config"], cwd=project, check=True)
    dvc(clone, "pull")
    assert ran(dvc(clone, "repro")) == []
    model = "models/mobilenetv2.safetensors"
    assert (clone / model).read_bytes() == (project / model).read_bytes()
    assert "metrics/resnet50.json" in dvc(clone, "metrics", "show")
    shutil.rmtree(clone / "models")
    shutil.rmtree(clone / ".dvc" / "cache")
    fetched = "fetched.safetensors"
    dvc(tmp_path, "get", str(clone), model, "--out", fetched)
    photo = str(sorted((raw / "images").iterdir())[0])
    answered = subprocess.run(
        [sys.executable, "-m", "lesions.commands", "predict", photo, "--model", fetched],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert answered.stdout.startswith(photo)
