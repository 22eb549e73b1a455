from typing import Any

from lesions.reporting.experiments import compare_experiments

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


def test_experiments_are_sorted_and_say_what_they_changed() -> None:
    rows = [
        row(None, "workspace", 0.7),
        row(None, "main", 0.7),
        row("sweep-1", "abc", 0.6, lr=0.01),
        row("sweep-2", "def", 0.9, **{"lr": 0.0003, "augment.hue": 0}),
    ]
    heading, names, *lines = compare_experiments(rows, MODELS).splitlines()
    assert heading == "weighted F1 on validation"
    assert names.split() == ["experiment", "changed", "ResNet50", "MobileNetV2"]
    assert [line.split() for line in lines] == [
        ["sweep-2", "lr=0.0003", "augment.hue=0", "0.9", "0.5"],
        ["workspace", "nothing", "0.7", "0.5"],
        ["last", "commit", "nothing", "0.7", "0.5"],
        ["sweep-1", "lr=0.01", "0.6", "0.5"],
    ]


def test_other_validation_photos_get_a_table_of_their_own() -> None:
    rows = [row(None, "main", 0.7), row("real", "abc", 0.9, source="dataverse", lr=0.01)]
    text = compare_experiments(rows, MODELS)
    first, second, notice = text.split("\n\n")
    assert "source=sample" in first
    assert "source=dataverse" in second
    assert "real" not in first
    assert "do not compare" in notice


def test_long_changes_and_missing_metrics_fit_120_columns() -> None:
    changes = {f"augment.{key}": 0.123456789 for key in ("hue", "rotation", "contrast")}
    commit = {**row(None, "main", 0.7), **dict.fromkeys(changes, 0)}
    text = compare_experiments([commit, row("x" * 30, "abc", None, **changes)], MODELS)
    assert "…" in text
    assert " - " in text
    assert max(map(len, text.splitlines())) <= 120
