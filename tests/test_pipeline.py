"""The whole pipeline, small, as a user runs it: dvc repro, experiments, metrics, plots."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import (
    CODES,
    DATASET,
    ROOT,
    change_params,
    commit,
    dvc,
    generate_raw,
    git,
    run,
)
from PIL import Image

from lesions.evaluation.tables import TABLES
from lesions.scoring.metrics import metrics_of

# One worker runs all tests that share the project.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("project")]

MODELS = ("resnet50", "mobilenetv2")
METRICS = metrics_of(DATASET)
NAMES = tuple(key for key, metric in METRICS.items() if metric.is_key)
MODEL_CARD = "models/resnet50.md"
COMPARED = [key for key, metric in METRICS.items() if metric.compared]
ISIC_COLUMNS = [code.upper() for code in CODES]
TRAINING = ["train-resnet50", "train-mobilenetv2", "evaluate"]
METRIC_FILES = [f"metrics/val/{model}.json" for model in MODELS] + [
    f"metrics/test/{name}.json" for name in (*MODELS, "baseline")
]


def ran(output: str) -> list[str]:
    """Name the stages that DVC ran, not those that it took from its run cache."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def back_to_commit(project: Path) -> None:
    """Undo what a test has done to the project."""
    git(project, "checkout", "--quiet", ".")
    assert ran(dvc(project, "repro")) == []


def external_test_set(folder: Path, seed: int) -> Path:
    """Make an external test set in ISIC's form, of synthetic photos."""
    generate_raw(seed, folder / "drawn", dict.fromkeys(CODES, (3, 0, 0)))
    metadata = pd.read_csv(folder / "drawn/metadata.csv")
    truth = pd.DataFrame({"image": "EXTERNAL_" + metadata["image_id"]})
    for column in ISIC_COLUMNS:
        truth[column] = (metadata["dx"].str.upper() == column).astype(float)
    for photo in (folder / "drawn/images").iterdir():
        photo.rename(folder / f"EXTERNAL_{photo.name}")
    shutil.rmtree(folder / "drawn")
    truth.to_csv(folder / "truth.csv", index=False)
    return folder


def test_results_are_there(project: Path) -> None:
    for file in METRIC_FILES:
        assert tuple(json.loads((project / file).read_text())) == NAMES
    for model in MODELS:
        predicted = pd.read_csv(project / f"plots/{model}/predictions.csv")
        tested = pd.read_csv(project / "data/split/test.csv")
        expected = ["image_id", "lesion_id", "actual", "predicted", "confidence", *CODES]
        assert list(predicted.columns) == expected
        assert list(predicted["image_id"]) == list(tested["image_id"])
        assert list(predicted["actual"]) == list(tested["dx"])
        assert "## Results" in (project / f"models/{model}.md").read_text()
        assert len(pd.read_csv(project / f"plots/{model}/history.csv")) == 1
    # Nine validation and nine test photos are too few for these.
    too_few = {"operating_points", "verified", "verified_operating_points", "group_calibration"}
    for table in TABLES:
        titles = pd.read_csv(project / f"plots/{table}.csv")["model"].unique()
        assert list(titles) == ([] if table in too_few else ["ResNet50", "MobileNetV2"])
    for model in MODELS:
        kept = pd.read_csv(project / f"models/{model}.validation.csv")
        assert list(kept.columns) == ["image_id", "lesion_id", "actual", *CODES]
    assert len(pd.read_csv(project / "plots/confusion.csv")) == 2 * 49
    assert list(pd.read_csv(project / "plots/comparison.csv")["metric"]) == COMPARED
    pictures = list(project.glob("plots/**/*.png"))
    assert len(pictures) == 3
    assert all(picture.stat().st_size < 1_000_000 for picture in pictures)
    assert not list(project.glob("**/*.partial"))
    assert not list(project.glob("models/*checkpoint*"))


def test_git_has_results_but_no_photos_and_no_weights(project: Path) -> None:
    names = git(project, "ls-files").splitlines()
    assert {"metrics/test/resnet50.json", "plots/mobilenetv2/history.csv", "dvc.lock"} <= set(names)
    assert not [name for name in names if name.endswith((".npy", ".safetensors"))]
    synthetic = ["docs/course/photos.jpg", "docs/sample.jpg"]
    assert [name for name in names if name.endswith(".jpg")] == synthetic
    inside = [name for name in names if name.startswith(("data/", "models/"))]
    assert inside == ["data/.gitkeep", "models/.gitkeep"]


def test_second_repro_does_nothing(project: Path) -> None:
    assert ran(dvc(project, "repro")) == []


def test_metrics_show_has_five_full_rows(project: Path) -> None:
    files = json.loads(dvc(project, "metrics", "show", "--json"))[""]["data"]
    assert sorted(files) == sorted(METRIC_FILES)
    assert all(set(file["data"]) == set(NAMES) for file in files.values())
    header, *rows = dvc(project, "metrics", "show").splitlines()
    assert len(rows) == 5
    assert all(len(row.split()) == 7 and " - " not in row for row in rows)
    assert len(header) <= 125


def test_exp_show_has_few_columns_of_code(project: Path) -> None:
    columns = dvc(project, "exp", "show", "--csv").splitlines()[0].split(",")
    assert len({name for name in columns if name.startswith("lesions/")}) == 8
    # Of the dataset: its file, the classes in one column, what is watched, and each group.
    groups = ["groups.melanoma", "groups.malignant"]
    assert {"datasets/ham10000.yaml", "classes", "watched", *groups} <= set(columns)
    assert not [name for name in columns if name.startswith("titles")]


def test_plots_show_every_plot_and_no_name_of_dvcs_own(project: Path) -> None:
    dvc(project, "plots", "show")
    page = (project / "dvc_plots" / "index.html").read_text()
    for title in (
        *("Loss", "Accuracy", "Precision and recall", "Metrics", "Differences"),
        *("Confusion matrices", "ROC curves", "Reliability: how", "Accuracy in subgroups"),
        *("Sensitivity of each class", "ResNet50: weighted F1, which"),
        *("Decisions", "Net benefit", "Selective prediction"),
        "MobileNetV2: confidence of correct and wrong predictions",
    ):
        assert title in page
    assert "make report" in page
    shown = json.loads(dvc(project, "plots", "show", "--json"))["data"]
    kinds = [plot["type"] for plots in shown.values() for plot in plots]
    # Without the four tables that have no rows.
    assert (kinds.count("vega"), kinds.count("image")) == (17, 3)


def test_results_with_a_leak_are_marked_everywhere(project: Path) -> None:
    output = dvc(project, "exp", "run", "--name", "leak", "--set-param", "holdout=any-photo")
    test = pd.read_csv(project / "data/split/test.csv")
    train = pd.read_csv(project / "data/split/train.csv")
    leaking = int(test["lesion_id"].isin(train["lesion_id"]).sum())
    assert leaking > 0
    assert output.count(f"LEAKING: {leaking} of {len(test)} test photos") >= 2
    shown = json.loads(dvc(project, "metrics", "show", "--json"))[""]["data"]
    assert {file["data"]["leaking_photos"] for file in shown.values()} >= {leaking}
    assert "LEAKING" in (project / "models/resnet50.md").read_text()
    back_to_commit(project)


def test_pairs_of_photos_of_one_lesion_stay_together_and_are_a_dependency(project: Path) -> None:
    subsets = {name: pd.read_csv(project / f"data/split/{name}.csv") for name in ("train", "test")}
    pair = [rows.loc[rows["dx"] == "nv", "image_id"].iloc[0] for rows in subsets.values()]
    pairs = project / "pairs.csv"
    pairs.write_text(f"image_id,same_lesion_as\n{','.join(pair)}\n")
    change_params(project / "params.yaml", same_lesion="pairs.csv")
    assert "1 of the 1 listed pairs of photos of one lesion are here" in dvc(
        project, "repro", "split"
    )
    train = pd.read_csv(project / "data/split/train.csv").set_index("image_id")
    assert train.loc[pair, "lesion_id"].nunique() == 1
    assert "split" not in json.loads(dvc(project, "status", "--json", "split"))
    pairs.write_text(pairs.read_text() + f"{pair[0]},{train.index[0]}\n")
    assert "split" in json.loads(dvc(project, "status", "--json", "split"))
    pairs.unlink()
    back_to_commit(project)


def test_experiments_run_what_they_must_and_come_back_without_training(project: Path) -> None:
    output = dvc(project, "exp", "run", "--name", "faster", "--set-param", "lr=0.01")
    assert ran(output) == TRAINING
    assert yaml.safe_load((project / "params.yaml").read_text())["lr"] == 0.01
    difference = dvc(project, "exp", "diff")
    assert "metrics/val/resnet50.json" in difference
    assert "lr" in difference
    assert "history" not in difference
    assert "faster" in dvc(project, "exp", "show", "--csv")
    # Back to the earlier value: everything comes from the run cache.
    assert ran(dvc(project, "exp", "run", "--set-param", "lr=0.001")) == []
    assert ran(dvc(project, "exp", "run", "--set-param", "seed=1")) == TRAINING
    assert ran(dvc(project, "exp", "run", "--set-param", "seed=0")) == []
    back_to_commit(project)


def test_split_seed_runs_from_the_split_on(project: Path) -> None:
    change_params(project / "params.yaml", split_seed=1)
    assert ran(dvc(project, "repro", "--dry"))[0] == "split"
    back_to_commit(project)


@pytest.mark.parametrize("chapter", ["sources", "evaluation", "reporting", "serving", "curation"])
def test_code_that_training_never_runs_does_not_retrain(project: Path, chapter: str) -> None:
    file = next((project / "lesions" / chapter).glob("[a-z]*.py"))
    file.write_text(file.read_text() + "# a comment\n")
    changed = set(json.loads(dvc(project, "status", "--json")))
    assert not changed & {"train-resnet50", "train-mobilenetv2", "resize", "split", "balance"}
    assert ("evaluate" in changed) == (chapter in ("evaluation", "reporting"))
    file = next((project / "lesions" / "training").glob("[a-z]*.py"))
    file.write_text(file.read_text() + "# a comment\n")
    assert {"train-resnet50", "train-mobilenetv2"} <= set(
        json.loads(dvc(project, "status", "--json"))
    )
    back_to_commit(project)


def test_an_interrupted_temporary_experiment_resumes(project: Path, tmp_path: Path) -> None:
    """DVC deletes its workspace, but not the checkpoint in the user's cache."""
    experiment = ["exp", "run", "--temp", "-S", "epochs=8", "train-mobilenetv2"]
    # A background job, as CI may be, inherits an ignored SIGINT; the experiment must hear it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(
        [sys.executable, "-m", "dvc", *experiment],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    checkpoints = tmp_path / "cache/checkpoints"  # the fixture user_cache
    while not list(checkpoints.glob("mobilenetv2-*.checkpoint")):
        assert running.poll() is None
        time.sleep(0.02)
    workspaces = project / ".dvc" / "tmp" / "exps" / "standalone"
    assert list(workspaces.glob("tmp*"))
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(60) != 0
    assert not list(workspaces.glob("tmp*"))
    assert "mobilenetv2: resumes after epoch" in dvc(project, *experiment)
    assert not list(checkpoints.glob("*"))


def test_two_at_once_do_no_harm(project: Path) -> None:
    change_params(project / "params.yaml", lr=0.002)
    command = [sys.executable, "-m", "dvc", "repro"]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with subprocess.Popen(
        command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as first:
        assert first.stdout
        lines = iter(first.stdout.readline, "")
        assert any("Running stage 'train-resnet50'" in line for line in lines)
        assert any("differs from the last commit: lr 0.001 → 0.002" in line for line in lines)
        second = dvc(project, "repro", fails=True)
        assert "is busy" in second or "Unable to acquire lock" in second
        list(lines)
    assert first.returncode == 0
    assert ran(dvc(project, "repro")) == []
    back_to_commit(project)


def test_two_external_test_sets(project: Path, tmp_path: Path) -> None:
    clinic, isic = external_test_set(tmp_path / "a", 5), external_test_set(tmp_path / "b", 6)
    # One photo under two names: the same lesion for all intervals.
    first, second = sorted(clinic.glob("*.jpg"))[:2]
    shutil.copy(first, second)
    settings = [f"+external_tests.clinic={clinic}", f"+external_tests.isic={isic}"]
    output = dvc(project, "exp", "run", "-S", settings[0], "-S", settings[1])
    assert sorted(ran(output)) == [
        *("evaluate-external@clinic", "evaluate-external@isic"),
        *("external@clinic", "external@isic"),
    ]
    for name, folder in (("clinic", clinic), ("isic", isic)):
        for file in (*MODELS, "baseline"):
            values = json.loads((project / f"metrics/{name}/{file}.json").read_text())
            assert tuple(values) == NAMES
        assert len(pd.read_csv(project / f"plots/{name}/comparison.csv")) == len(COMPARED)
        submission = pd.read_csv(project / f"data/predictions/{name}/resnet50_isic.csv")
        assert list(submission.columns) == ["image", *ISIC_COLUMNS]
        assert list(submission["image"]) == sorted(pd.read_csv(folder / "truth.csv")["image"])
        assert submission[list(ISIC_COLUMNS)].sum(axis=1).between(0.999, 1.001).all()
    table = pd.read_csv(project / "data/external/clinic/test.csv")
    lesion_of = table.set_index("image_id")["lesion_id"].to_dict()
    assert lesion_of[second.stem] == lesion_of[first.stem] == first.stem
    assert table["lesion_id"].nunique() == len(table) - 1
    assert "metrics/clinic/resnet50.json" in dvc(project, "metrics", "show")
    run(project, sys.executable, "-m", "lesions.commands", "report")
    page = (project / "dvc_plots/report.html").read_text()
    assert "External test sets" in page
    assert all(page.count(f'<th scope="row">{name}</th>') == 2 for name in ("clinic", "isic"))
    git(project, "clean", "--quiet", "--force", "-d", "metrics", "plots")
    back_to_commit(project)
    assert len(dvc(project, "metrics", "show").splitlines()) == 6


def test_the_users_photos_in_an_output_folder_are_never_deleted(
    project: Path, raw: Path, tmp_path: Path
) -> None:
    """Photos in data/raw, as a source or before the first run: refused, and still there."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    photos = clone / "data/raw/mine"
    shutil.copytree(raw / "images", photos)
    before = sorted(path.read_bytes() for path in photos.iterdir())
    output = dvc(clone, "exp", "run", "-S", "source=data/raw", fails=True)
    assert "source is 'data/raw', in data/raw/, which the pipeline writes" in output
    git(clone, "checkout", "--quiet", "params.yaml")
    # Not even those in the folder that the stage replaces.
    shutil.copytree(photos, clone / "data/raw/images")
    output = dvc(clone, "repro", fails=True)
    assert "data/raw/images: has 28 files that this pipeline has not written" in output
    for folder in (photos, clone / "data/raw/images"):
        assert sorted(path.read_bytes() for path in folder.iterdir()) == before


def test_a_failing_stage_says_why_and_leaves_the_old_results(project: Path) -> None:
    output = dvc(project, "exp", "run", "--set-param", "source=nowhere", fails=True)
    assert "error: source: 'nowhere' is not a folder" in output
    assert "failed to reproduce 'download'" in output
    back_to_commit(project)
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
    git(project, "checkout", "--quiet", ".dvc/config")
    dvc(clone, "pull")
    assert ran(dvc(clone, "repro")) == []
    model = "models/mobilenetv2.safetensors"
    assert (clone / model).read_bytes() == (project / model).read_bytes()
    shutil.rmtree(clone / "models")
    shutil.rmtree(clone / ".dvc" / "cache")
    # By path, and by its name among the artifacts.
    dvc(tmp_path, "get", str(clone), model, "--out", "by_path.safetensors")
    git(clone, "config", "user.name", "test")
    git(clone, "config", "user.email", "test@example.com")
    commit(clone, "name the remote")
    git(clone, "tag", "--annotate", "--message", "first", "mobilenetv2@v1.0.0")
    dvc(tmp_path, "artifacts", "get", str(clone), "mobilenetv2", "--out", "by_name.safetensors")
    expected = (project / model).read_bytes()
    assert (tmp_path / "by_path.safetensors").read_bytes() == expected
    assert (tmp_path / "by_name.safetensors").read_bytes() == expected
    photo = str(sorted((raw / "images").iterdir())[0])
    command = [sys.executable, "-m", "lesions.commands", "predict", photo]
    output = run(tmp_path, *command, "--model", "by_name.safetensors")
    assert output.splitlines()[1].endswith(photo)


def test_networks_are_added_and_taken_out_by_one_command(project: Path, tmp_path: Path) -> None:
    """The other networks are not trained again, and every comment stays."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    git(clone, "config", "user.name", "test")
    git(clone, "config", "user.email", "test@example.com")
    shutil.copytree(project / ".dvc" / "cache", clone / ".dvc" / "cache")
    dvc(clone, "checkout")
    # The published file, with its comments, and this project's values.
    params = (ROOT / "params.yaml").read_text()
    params = params.replace("image_size: 224", "image_size: 32").replace("epochs: 10", "epochs: 1")
    (clone / "params.yaml").write_text(params)
    commit(clone, "comments")
    assert ran(dvc(clone, "repro")) == []
    lesions = [sys.executable, "-m", "lesions.commands"]
    command = ["add-network", "efficientnet_b0", "--title", "EfficientNet-B0"]
    assert "its last feature map is features" in run(clone, *lesions, *command)
    run(clone, *lesions, "add-network", "mobilenet_v2", "--last-layer")
    added = git(clone, "diff", "--numstat").split()
    assert (added[1], added[4]) == ("0", "0")  # no line is gone
    before = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(before.replace("ensemble: false", "ensemble: true"))
    commit(clone, "two networks, and the mean of all")
    output = dvc(clone, "repro")
    assert ran(output) == ["train-efficientnet_b0", "train-mobilenet-v2-last-layer", "evaluate"]
    assert "EfficientNet-B0" in output
    shown = dvc(clone, "metrics", "show")
    assert "metrics/val/efficientnet_b0.json" in shown
    assert "metrics/test/efficientnet_b0.json" in shown
    pairs = pd.read_csv(clone / "plots/comparison.csv")[["first", "second"]].drop_duplicates()
    assert len(pairs) == 10
    values = json.loads((clone / "metrics/test/ensemble.json").read_text())
    assert list(values) == list(json.loads((clone / "metrics/test/resnet50.json").read_text()))
    run(clone, *lesions, "report")
    page = (clone / "dvc_plots/report.html").read_text()
    for title in ("EfficientNet-B0", "Last layer of mobilenet_v2", "mean of all networks"):
        assert page.count(title) > 5
    (clone / "params.yaml").write_text(before)
    run(clone, *lesions, "remove-network", "efficientnet_b0")
    run(clone, *lesions, "remove-network", "mobilenet-v2-last-layer")
    assert git(clone, "diff", "HEAD~1", "--stat", "--", "params.yaml", "dvc.yaml") == ""
    run(clone, *lesions, "remove-network", "resnet50")
    assert "train-mobilenetv2" not in dvc(clone, "status")


def letters(folder: Path) -> None:
    """Draw a folder per class: three classes, ten patients with photos of two classes each."""
    rng, rows = np.random.default_rng(0), []
    for number in range(90):
        name, patient = "ABC"[number % 3], number // 9
        pixels = np.full((40, 50, 3), 60 * (number % 3), np.uint8)
        pixels += rng.integers(0, 60, pixels.shape, dtype=np.uint8)
        (folder / f"Class {name}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"Class {name}" / f"{number:03}.png")
        rows.append((f"{number:03}", f"{patient:02}"))
    pd.DataFrame(rows, columns=["file", "patient"]).to_csv(folder / "people.csv", index=False)


def test_a_strangers_folder_runs_from_new_to_report(project: Path, tmp_path: Path) -> None:
    letters(tmp_path / "letters")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    git(clone, "config", "user.name", "test")
    git(clone, "config", "user.email", "test@example.com")
    lesions = [sys.executable, "-m", "lesions.commands"]
    output = run(clone, *lesions, "new", str(tmp_path / "letters"))
    words = " ".join(output.split())  # the lines are wrapped
    assert "90 photos of 10 patients in 3 classes" in words
    assert "assumed: classes: the names of the photos' folders" in words
    assert "0 of 10 patients are in two subsets; a split by photo would have put" in words
    commands = [line.strip() for line in output.splitlines() if "dvc exp run" in line]
    assert len(commands) == 2
    # Groups as a person would write them.
    described = clone / "datasets/letters.yaml"
    text = described.read_text().replace("groups: {}\n", "groups: {found: [class_a]}\n")
    described.write_text(text.replace("watched: null", "watched: found"))
    commit(clone, "my photos")
    command = [*shlex.split(commands[0])[1:], "-S", "weights=random", "-S", "image_size=32"]
    output = dvc(clone, *command, "-S", "epochs=1")
    assert "found 90 photos of 10 patients in 3 classes" in output
    metrics = json.loads((clone / "metrics/test/resnet50.json").read_text())
    assert list(metrics)[-1] == "found_sensitivity"
    predicted = pd.read_csv(clone / "plots/resnet50/predictions.csv", dtype=str)
    assert list(predicted)[:3] == ["image_id", "lesion_id", "patient_id"]
    assert predicted["image_id"].str.len().eq(3).all()  # 007 stays 007
    train = pd.read_csv(clone / "data/split/train.csv", dtype=str)
    assert not set(train["patient_id"]) & set(predicted["patient_id"])
    run(clone, *lesions, "report")
    names = ("dvc_plots/report.html", "dvc_plots/photos.html", MODEL_CARD)
    page, browser, card = ((clone / name).read_text() for name in names)
    for text in (page, browser, card, output):
        for word in ("HAM10000", "Vienna", "melanoma", "malignant", "dermatoscopic", "seven"):
            assert word not in text, word
    assert "not stated" in card
    photo = str(tmp_path / "letters/Class A/000.png")
    line = run(clone, *lesions, "predict", photo, "--model", "resnet50").splitlines()[1]
    assert set(line.split()[:5:2]) == {"class_a", "class_b", "class_c"}
