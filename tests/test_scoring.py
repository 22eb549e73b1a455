import numpy as np
import pytest
from conftest import answers_of, random_answers
from sklearn import metrics

from lesions.scoring import (
    commonest,
    figures,
    headline,
    once,
    per_class,
    report,
    resampled,
    subgroups,
)
from lesions.scoring import scores as score_table


def test_figures_against_scikit_learn_weighted() -> None:
    answers = random_answers()
    labels, probabilities, said = answers.labels, answers.probabilities, answers.said
    weights = np.random.default_rng(1).integers(0, 4, (3, len(labels))).astype(float)
    found = figures(answers, weights)
    malignant, danger = np.isin(labels, [0, 1, 4]), probabilities[:, [0, 1, 4]].sum(axis=1)
    for row, weight in enumerate(weights):
        w = {"sample_weight": weight}
        expected = {
            "accuracy": metrics.accuracy_score(labels, said, **w),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, said, **w),
            "weighted_f1": metrics.f1_score(labels, said, average="weighted", **w),
            "macro_f1": metrics.f1_score(labels, said, average="macro", **w),
            "roc_auc": np.mean(
                [metrics.roc_auc_score(labels == k, probabilities[:, k], **w) for k in range(7)]
            ),
            "melanoma_sensitivity": metrics.recall_score(labels == 4, said == 4, **w),
            "malignant_auc": metrics.roc_auc_score(malignant, danger, **w),
        }
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-9), name


def test_headline_is_flat_and_short() -> None:
    found = headline(random_answers())
    assert len(found) <= 8
    assert found["accuracy"] == round(once(random_answers())["accuracy"], 4)


def test_per_class_by_hand() -> None:
    # Truth nv nv nv mel mel bkl; answers nv nv mel mel nv bkl.
    labels = np.array([5, 5, 5, 4, 4, 2])
    probabilities = np.eye(7)[[5, 5, 4, 4, 5, 2]] * 0.4 + 0.6 / 7
    nv = per_class(answers_of(probabilities, labels)).set_index("dx").loc["nv"]
    assert nv["photos"] == nv["lesions"] == 3
    assert nv["sensitivity"] == pytest.approx(2 / 3)
    assert nv["specificity"] == pytest.approx(2 / 3)
    assert nv["precision"] == pytest.approx(2 / 3)
    assert nv["f1"] == pytest.approx(2 / 3)
    assert nv["roc_auc"] == pytest.approx(2 / 3)
    assert nv["low"] < 2 / 3 < nv["high"]


def test_a_diagnosis_that_does_not_occur_is_not_scored() -> None:
    answers = answers_of(np.eye(7)[[5, 4, 2, 2]], np.array([5, 5, 2, 2]))
    table = per_class(answers).set_index("dx")
    assert table.loc["mel", "photos"] == 0
    undefined = ["sensitivity", "low", "high", "f1", "roc_auc", "average_precision", "specificity"]
    assert table.loc["mel", undefined].isna().all()
    assert table["precision"].isna()["df"]
    found = headline(answers)
    assert "melanoma_sensitivity" not in found
    assert found["balanced_accuracy"] == 0.75
    assert " - " in report(answers)
    row = score_table(answers, resampled(answers)).set_index("figure").loc["melanoma_sensitivity"]
    assert row.isna().all()


def test_one_diagnosis_alone() -> None:
    found = headline(answers_of(np.eye(7)[[5, 5]], np.array([5, 5])))
    assert found["accuracy"] == found["baseline_accuracy"] == 1
    assert "roc_auc" not in found


def test_constant_answers_score_as_the_baseline() -> None:
    labels = np.array([5] * 8 + [4] * 2)
    answers = answers_of(np.full((10, 7), 1 / 7) + np.eye(7)[5] * 0.1, labels)
    found = headline(answers)
    assert found["accuracy"] == found["baseline_accuracy"] == 0.8
    assert found["balanced_accuracy"] == 0.5
    assert found["roc_auc"] == 0.5
    assert found["melanoma_sensitivity"] == 0
    assert once(commonest(answers))["weighted_f1"] == pytest.approx(
        metrics.f1_score(labels, np.full(10, 5), average="weighted")
    )


def test_intervals_hold_the_value_and_shrink_with_more_photos() -> None:
    widths = []
    for n in (100, 1600):
        answers = random_answers(n)
        table = score_table(answers, resampled(answers)).set_index("figure")
        assert table["low"].isna()[["calibration_error", "calibration_error_before"]].all()
        known = table.dropna(subset="low")
        assert len(known) == len(table) - 2
        assert (known["low"] <= known["value"]).all()
        assert (known["value"] <= known["high"]).all()
        mel = per_class(answers).set_index("dx").loc["mel"]
        assert table["low"]["melanoma_sensitivity"] == mel["low"]
        widths.append((table["high"] - table["low"])["accuracy"])
        assert table.loc["accuracy", "baseline"] == once(commonest(answers))["accuracy"]
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.2)


def test_photos_of_one_lesion_count_together() -> None:
    labels = np.tile([4, 5], 50)
    said = np.where(np.arange(100) < 40, labels, 2)
    alone = answers_of(np.eye(7)[said], labels)
    fours = answers_of(np.eye(7)[said], labels, [f"L{row // 4}" for row in range(100)])
    wide, narrow = (np.std(resampled(one)["accuracy"]) for one in (fours, alone))
    assert wide == pytest.approx(2 * narrow, rel=0.1)


def test_subgroups() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([4] * 15 + [5] * 35)
    right = rng.random(50) < 0.8
    said = np.where(right, labels, 2)
    answers = answers_of(
        np.eye(7)[said] * 0.9 + 0.1 / 7,
        labels,
        sex=["male"] * 45 + ["female"] * 5,
        age=["35.0", "40.0", "59.0", "60.0", ""] * 10,
        dx_type="histo",
    )
    table = subgroups(answers).set_index("group")
    assert table.loc["sex: male", "accuracy"] == pytest.approx(right[:45].mean())
    assert table.loc["sex: male", "melanoma_sensitivity"] == pytest.approx(right[:15].mean())
    assert table.loc["sex: female", "photos"] == 5
    assert table.loc["sex: female", "accuracy":].isna().all()
    ages = table.loc[["age: under 40", "age: 40–59", "age: 60 up", "age: unknown"], "photos"]
    assert list(ages) == [10, 20, 10, 10]
    assert table["melanoma_sensitivity"].isna()["age: 60 up"]  # of 3 melanomas
    assert table.loc["proof: histology", "photos"] == 50
