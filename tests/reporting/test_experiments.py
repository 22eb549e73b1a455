import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lesions.reporting.experiments import compare_experiments, compare_with
from lesions.scoring.metrics import confusion_matrices, weighted_f1

MODELS = {"resnet50": "ResNet50", "mobilenetv2": "MobileNetV2"}


def row(name: str | None, rev: str, f1: float | None, **params: Any) -> dict[str, Any]:
    return {
        "Experiment": name,
        "rev": rev,
        "metrics/val/resnet50.json:weighted_f1": f1,
        "metrics/val/mobilenetv2.json:weighted_f1": 0.5,
        "source": "sample",
        "lr": 0.001,
        "augment.hue": 0.1,
        **params,
    }


def lock(lr: float = 0.001, hue: float = 0.1, source: str = "sample") -> dict[str, Any]:
    values = {"lr": lr, "augment": {"hue": hue}, "source": source}
    stage = {"params": {"params.yaml": values}}
    return {"stages": {"train-resnet50": stage, "train-mobilenetv2": stage}}


def test_a_network_that_an_experiment_did_not_train_is_not_shown() -> None:
    rows = [row(None, "main", 0.7), row("sweep-1", "abc", 0.7, lr=0.01)]
    stages = {**lock()["stages"], "train-mobilenetv2": lock(lr=0.01)["stages"]["train-mobilenetv2"]}
    text = compare_experiments(rows, MODELS, {"main": lock(), "abc": {"stages": stages}}, {})
    assert text.splitlines()[-1].split() == ["sweep-1", "lr=0.01", "-", "0.5000"]


def test_experiments_are_sorted_and_say_what_they_changed() -> None:
    rows = [
        row(None, "workspace", 0.7),
        row(None, "main", 0.7),
        row("sweep-1", "abc", 0.6, lr=0.01),
        row("sweep-2", "def", 0.9, **{"lr": 0.0003, "augment.hue": 0}),
    ]
    locks = {"workspace": lock(), "main": lock(), "abc": lock(0.01), "def": lock(0.0003, 0)}
    heading, names, *lines = compare_experiments(rows, MODELS, locks, {}).splitlines()
    assert heading == "weighted F1 on validation"
    assert names.split() == ["experiment", "changed", "ResNet50", "MobileNetV2"]
    assert [line.split() for line in lines] == [
        ["sweep-2", "lr=0.0003", "augment.hue=0", "0.9000", "0.5000"],
        ["workspace", "nothing", "0.7000", "0.5000"],
        ["last", "commit", "nothing", "0.7000", "0.5000"],
        ["sweep-1", "lr=0.01", "0.6000", "0.5000"],
    ]


def test_other_validation_photos_get_a_table_of_their_own() -> None:
    rows = [row(None, "main", 0.7), row("real", "abc", 0.9, source="dataverse", lr=0.01)]
    locks = {"main": lock(), "abc": lock(0.01, source="dataverse")}
    text = compare_experiments(rows, MODELS, locks, {})
    first, second, notice = text.split("\n\n")
    assert "source=sample" in first
    assert "source=dataverse" in second
    assert "all: source=dataverse lr=0.01" in second
    assert "real" not in first
    assert "do not compare" in notice


def test_long_changes_and_missing_metrics_fit_120_columns() -> None:
    changes = {f"augment.{key}": 0.123456789 for key in ("hue", "rotation", "contrast")}
    commit = {**row(None, "main", 0.7), **dict.fromkeys(changes, 0)}
    rows = [commit, row("x" * 30, "abc", None, **changes)]
    text = compare_experiments(rows, MODELS, {"main": lock(hue=0)}, {})
    assert "…" in text
    assert " - " in text
    assert max(map(len, text.splitlines())) <= 120


def validation(wrong: int, photos: int = 200) -> pd.DataFrame:
    """Predictions of which the first `wrong` are wrong, as training writes them."""
    labels = np.arange(photos) % 2
    predicted = np.where(np.arange(photos) < wrong, 1 - labels, labels)
    ids = [f"P{row}" for row in range(photos)]
    table = pd.DataFrame(
        {"image_id": ids, "lesion_id": ids, "actual": np.array(["a", "b"])[labels]}
    )
    classes = pd.DataFrame(np.eye(2)[predicted] * 0.8 + 0.1, columns=["a", "b"])
    return pd.concat([table, classes], axis=1).astype(str)


def test_differences_have_paired_intervals() -> None:
    rows = [row(None, "main", 0.85), row("better", "abc", 0.9, lr=0.01)]
    one, other = validation(30), validation(20)
    validations = {"main": {"resnet50": one}, "abc": {"resnet50": other}}
    text = compare_experiments(rows, MODELS, {"main": lock(), "abc": lock(0.01)}, validations)
    assert "with the difference from the last commit and its paired 95 % interval" in text
    assert re.search(r"0\.9000 \+0\.050 \(\+0\.02\d to \+0\.08\d\)", text)
    assert text.count("(") == 1  # the last commit does not differ from itself
    # The same by hand: 10 of 200 photos are right in one alone.
    labels = np.arange(200) % 2
    scores = [
        float(weighted_f1(confusion_matrices(p, labels, np.ones((1, 200)), 2))[0])
        for p in (np.where(np.arange(200) < wrong, 1 - labels, labels) for wrong in (20, 30))
    ]
    assert scores[0] - scores[1] == pytest.approx(0.05, abs=0.001)


def test_what_cannot_be_compared_has_no_difference() -> None:
    one = validation(30)
    renamed = one.assign(image_id="Q" + one["image_id"])
    assert compare_with(one, renamed) == compare_with(one, None) == compare_with(one, one) == ""
    assert compare_with(validation(3, 20), validation(5, 20)) == ""  # too few lesions
