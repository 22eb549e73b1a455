"""The report's first table: what is found, compared and above the baseline."""

from dataclasses import replace
from typing import Any

import pytest
from helpers import DATASET

from lesions.reporting import results as library
from lesions.reporting.cases import Case, Judged
from lesions.reporting.overview import (
    next_steps,
    not_above_baseline,
    overview,
    short_verdicts,
    trained_on,
)
from lesions.reporting.results import Results, Row

METRICS = ("accuracy", "balanced_accuracy", "melanoma_auc", "malignant_auc")


def metric(model: str, key: str, value: float, low: float | None = None) -> Row:
    high = None if low is None else value + 0.1
    row = {"model": model, "metric": key, "title": key.replace("_", " "), "value": value}
    return {**row, "low": low, "high": high, "baseline": 0.8, "photos": 50}


def point(model: str, group: str, cases: int = 42, **more: Any) -> Row:
    row = {"model": model, "group": group, "aim": 0.9, "assured": False, "low": 0.7, "high": 0.95}
    return {**row, "found": 38, "cases": cases, "false_alarms": 121, "others": 959, **more}


def difference(key: str, value: float, low: float | None, significant: bool = False) -> Row:
    high = None if low is None else value + (value - low)
    row = {"first": "A", "second": "B", "metric": key, "title": key, "difference": value}
    return {**row, "low": low, "high": high, "significant": significant}


def of_set(name: str = "test set", **tables: list[Row]) -> library.TestSet:
    names = [one for one in library.TestSet.__dataclass_fields__ if one not in ("name", "photos")]
    return library.TestSet(name=name, photos=1001, **{**{one: [] for one in names}, **tables})


@pytest.fixture
def results() -> Results:
    own = of_set(
        metrics=[metric(m, key, 0.9, 0.85) for key in METRICS for m in ("A", "B")],
        verified=[metric(m, key, 0.6, 0.5) for key in METRICS for m in ("A", "B")],
        operating_points=[
            point("A", "melanoma"),
            point("A", "melanoma", aim=0.8, found=1),
            point("A", "melanoma", assured=True, found=2),
            point("A", "malignant", cases=4, found=3),
            point("B", "melanoma", found=20, high=0.6),
        ],
        comparison=[
            difference("accuracy", 0.05, 0.02, significant=True),
            difference("melanoma_threshold_sensitivity", -0.05, -0.1),
            difference("melanoma_sensitivity", 0.0, None),
        ],
    )
    clinic = of_set(
        "clinic",
        metrics=[metric(m, key, 0.5) for key in METRICS for m in ("A", "B")],
        operating_points=[point(m, "malignant", found=7) for m in ("A", "B")],
    )
    models = [{"name": name.lower(), "title": name, "weights": "imagenet"} for name in ("A", "B")]
    return Results(
        DATASET, "folder", 224, {}, [], models, [], [], own, [clinic],
        [{"dx": "nv", "train_photos": 8000, "val_photos": 1000, "test_photos": 1001}],
        "lesion", {}, {},
    )  # fmt: skip


def texts(results: Results) -> dict[str, list[list[str]]]:
    return {
        line.title: [[one.text + one.after for one in cell] for cell in line.cells]
        for line in overview(results)
    }


def test_found_and_referred_stand_in_one_line_with_links_to_the_photos(results: Results) -> None:
    watched = overview(results)[0]
    by = " at the threshold for 90\u00a0%"
    assert watched.title == "melanoma" + by  # the watched group is the first
    found, missed, alarms = watched.cells[0]
    assert found.text == "found 38 of 42, "
    assert (missed.text, missed.interval) == ("missed 4", "sensitivity 0.700 to 0.950")
    assert missed.filters == "show=missed:melanoma&model=a"
    assert alarms.text == "false alarms: 121 of 959 others"
    assert alarms.filters == "show=alarm:melanoma&model=a"
    assert watched.differences == ["sensitivity: \u22120.050 (\u22120.100 to 0.000)"]
    lines = texts(results)
    assert lines["malignant" + by] == [
        ["found 3 of 4, ", "missed 1, too few to judge", "false alarms: 121 of 959 others"],
        ["no threshold (under 10 validation cases)"],
    ]
    assert lines["melanoma" + by][1][1] == "missed 22, below its aim of 0.90"


def test_histology_external_sets_and_the_baseline_have_lines(results: Results) -> None:
    lines = texts(results)
    assert lines["accuracy (always the most common class: 0.800)"] == [["0.900"], ["0.900"]]
    title = "accuracy, only the 50 confirmed by histology (most common: 0.800)"
    assert lines[title] == [["0.600"], ["0.600"]]
    external = "clinic: malignant at the threshold for 90\u00a0%"
    assert lines[external][0][0] == "found 7 of 42, "
    assert lines["clinic: accuracy"] == [["0.500"], ["0.500"]]
    accuracy = next(line for line in overview(results) if line.title.startswith("accuracy ("))
    assert accuracy.differences == ["+0.050 (0.020 to 0.080)"]


def test_the_verdict_names_what_is_better_and_how_much_was_compared(results: Results) -> None:
    counted = "comparisons, corrected for that"
    assert short_verdicts(results) == [f"A is better than B in accuracy (3 {counted})."]
    other = [{**results.models[0], "weights": "random"}, results.models[1]]
    assert (
        "not all start from the same weights" in short_verdicts(replace(results, models=other))[1]
    )
    nothing = replace(results, test=replace(results.test, comparison=[]))
    assert short_verdicts(nothing) == []
    # Fewer false alarms are not better if fewer are found, too.
    for sensitivity, words in (
        (-0.1, "A and B: neither is shown to be better"),
        (0.0, "A is better than B in the melanoma threshold"),
    ):
        rows = [
            difference("melanoma_threshold_sensitivity", sensitivity, None),
            difference("melanoma_threshold_specificity", 0.2, 0.1, significant=True),
        ]
        traded = replace(results, test=replace(results.test, comparison=rows))
        assert short_verdicts(traded) == [f"{words} (2 {counted})."]


def test_a_model_that_is_not_above_the_baseline_is_named(results: Results) -> None:
    assert not_above_baseline(results) == ""
    low = [metric("A", "accuracy", 0.85, 0.79), metric("B", "accuracy", 0.9, 0.85)]
    weak = replace(results, test=replace(results.test, metrics=low))
    assert not_above_baseline(weak).endswith("most common class (0.800): A (0.850).")
    no_interval = [metric("A", "accuracy", 0.81), metric("B", "accuracy", 0.8)]
    few = replace(results, test=replace(results.test, metrics=no_interval))
    assert not_above_baseline(few).endswith(": B (0.800).")


def test_the_next_steps_lead_to_photos_that_are_there(results: Results) -> None:
    def case(predicted: str, missed: tuple[str, ...] = (), suspect: bool = False) -> Case:
        judged = Judged(predicted, {}, {predicted: 0.95}, missed, ())
        return Case("x", "mel", {}, suspect, {"a": judged, "b": judged})

    steps = next_steps(results, [case("nv", ("melanoma",), True), case("mel")])
    assert [step.filters for step in steps] == [
        *("show=wrong-in-all", "show=missed:melanoma", "show=suspect")
    ]
    assert steps[0].text == "1 photo wrong in all models"
    assert [step.filters for step in next_steps(results, [case("mel")])] == [""]
    assert trained_on(results).endswith(
        "trained on 8,000 photos, chosen and calibrated on 1,000, tested here on 1,001. "
        "No lesion is in two of these."
    )
