from typing import Any

import numpy as np
import pytest
from helpers import card_of, predictions_of, random_predictions
from sklearn import metrics

from lesions.evaluation.predictions import Predictions, majority_baseline
from lesions.evaluation.subgroups import subgroup_table
from lesions.evaluation.tables import (
    TABLES,
    Evaluated,
    bootstrap,
    confusion_table,
    decision_table,
    metric_table,
    per_class_table,
    point_estimates,
    subgroup_metrics,
)
from lesions.scoring.intervals import wilson_interval
from lesions.scoring.operating_points import OperatingPoint
from lesions.scoring.rules import DECISIONS


def evaluated(predictions: Predictions, **fitted: Any) -> Evaluated:
    return Evaluated(predictions, card_of(**fitted).use(1), bootstrap(predictions))


def test_per_class_by_hand() -> None:
    # Actual nv nv nv mel mel bkl; predicted nv nv mel mel nv bkl.
    labels = np.array([5, 5, 5, 4, 4, 2])
    probabilities = np.eye(7)[[5, 5, 4, 4, 5, 2]] * 0.4 + 0.6 / 7
    nv = per_class_table(evaluated(predictions_of(probabilities, labels))).set_index("dx").loc["nv"]
    assert nv["photos"] == nv["lesions"] == 3
    assert nv["sensitivity"] == pytest.approx(2 / 3)
    assert nv["specificity"] == pytest.approx(2 / 3)
    assert nv["precision"] == pytest.approx(2 / 3)
    assert nv["f1"] == pytest.approx(2 / 3)
    assert nv["low"] < 2 / 3 < nv["high"]
    assert np.isnan(nv["roc_auc"])  # of three lesions
    many = predictions_of(np.tile(probabilities, (4, 1)), np.tile(labels, 4))
    nv = per_class_table(evaluated(many)).set_index("dx").loc["nv"]
    assert nv["roc_auc"] == pytest.approx(2 / 3)


def test_a_diagnosis_that_does_not_occur_is_undefined() -> None:
    predictions = predictions_of(np.eye(7)[[5, 4, 2, 2]], np.array([5, 5, 2, 2]))
    table = per_class_table(evaluated(predictions)).set_index("dx")
    assert table.loc["mel", "photos"] == 0
    undefined = ["sensitivity", "low", "high", "f1", "roc_auc", "average_precision", "specificity"]
    assert table.loc["mel", undefined].isna().all()
    assert table["precision"].isna()["df"]
    rows = metric_table(evaluated(predictions)).set_index("metric")
    assert rows.loc["melanoma_sensitivity", ["value", "low", "high", "baseline"]].isna().all()


def test_constant_predictions_equal_the_baseline() -> None:
    labels = np.array([5] * 8 + [4] * 2)
    predictions = predictions_of(np.full((10, 7), 1 / 7) + np.eye(7)[5] * 0.1, labels)
    found, baseline = point_estimates(predictions), point_estimates(majority_baseline(predictions))
    assert found["accuracy"] == baseline["accuracy"] == 0.8
    assert found["balanced_accuracy"] == found["roc_auc"] == 0.5
    assert found["melanoma_sensitivity"] == 0
    expected = metrics.f1_score(labels, np.full(10, 5), average="weighted")
    assert baseline["weighted_f1"] == pytest.approx(expected)


def test_the_confusion_table_has_all_classes() -> None:
    table = confusion_table(
        evaluated(predictions_of(np.eye(7)[[5, 4, 5, 2]], np.array([5, 5, 5, 2])))
    )
    assert len(table) == 49
    cells = table.set_index(["actual", "predicted"])
    assert cells.loc[("nv", "nv"), "photos"] == 2
    assert cells.loc[("nv", "mel"), "share"] == pytest.approx(1 / 3)
    assert cells.loc[("bkl", "bkl"), "share"] == 1
    assert cells["share"].isna()[("mel", "mel")]
    assert table["photos"].sum() == 4


def test_intervals_hold_the_value_and_shrink_with_more_photos() -> None:
    widths = []
    for n in (100, 1600):
        predictions = random_predictions(n)
        table = metric_table(evaluated(predictions)).set_index("metric")
        assert table["low"].isna()[["calibration_error", "calibration_error_before"]].all()
        known = table.dropna(subset="low")
        assert len(known) == len(table) - 2
        assert (known["low"] <= known["value"]).all()
        assert (known["value"] <= known["high"]).all()
        mel = per_class_table(evaluated(predictions)).set_index("dx").loc["mel"]
        assert table["low"]["melanoma_sensitivity"] == mel["low"]
        widths.append((table["high"] - table["low"])["accuracy"])
        assert (
            table.loc["accuracy", "baseline"]
            == point_estimates(majority_baseline(predictions))["accuracy"]
        )
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.2)


def test_photos_of_one_lesion_count_together() -> None:
    labels = np.tile([4, 5], 100)
    predicted = np.where(np.arange(200) < 80, labels, 2)
    alone = predictions_of(np.eye(7)[predicted], labels)
    fours = predictions_of(np.eye(7)[predicted], labels, [f"L{row // 4}" for row in range(200)])
    wide, narrow = (np.std(bootstrap(one)["accuracy"]) for one in (fours, alone))
    assert wide == pytest.approx(2 * narrow, rel=0.1)


def test_too_few_lesions_have_no_interval() -> None:
    few, some = random_predictions(29), random_predictions(40)
    table = metric_table(evaluated(few)).set_index("metric")
    rest = table.drop("melanoma_sensitivity")  # Wilson's interval is right for any number
    assert rest["low"].isna().all()
    table = metric_table(evaluated(some)).set_index("metric")
    assert table["low"].notna()["accuracy"]
    # Fewer than ten malignant lesions, although there are 40 in all.
    rare = random_predictions(40)
    rare = predictions_of(rare.probabilities, np.where(np.arange(40) < 9, 4, 5))
    table = metric_table(evaluated(rare)).set_index("metric")
    assert table["low"].isna()["malignant_auc"]


def test_an_interval_without_width_is_not_shown() -> None:
    labels = random_predictions().labels
    perfect = predictions_of(np.eye(7)[labels] * 0.9 + 0.1 / 7, labels)
    table = metric_table(evaluated(perfect)).set_index("metric")
    assert table.loc["roc_auc", "value"] == 1
    assert table["low"].isna()["roc_auc"]


def test_wilson_counts_what_the_photos_of_lesions_are_worth() -> None:
    labels = np.full(40, 4)
    predicted = np.where(np.arange(40) < 20, 4, 5)
    lesions = [f"L{min(row, 30)}" for row in range(40)]  # the last ten are of one lesion
    predictions = predictions_of(np.eye(7)[predicted], labels, lesions)
    row = per_class_table(evaluated(predictions)).set_index("dx").loc["mel"]
    expected = wilson_interval(0.5, 40**2 / (30 + 10**2))
    assert (row["low"], row["high"]) == pytest.approx(expected)


def test_subgroups() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([4] * 15 + [5] * 35)
    right = rng.random(50) < 0.8
    predicted = np.where(right, labels, 2)
    predictions = predictions_of(
        np.eye(7)[predicted] * 0.9 + 0.1 / 7,
        labels,
        sex=["male"] * 45 + ["female"] * 5,
        age=["35.0", "40.0", "59.0", "60.0", ""] * 10,
        dx_type="histo",
    )
    table = subgroup_table(predictions, subgroup_metrics).set_index("group")
    assert table.loc["sex: male", "accuracy"] == pytest.approx(right[:45].mean())
    assert table.loc["sex: male", "melanoma_sensitivity"] == pytest.approx(right[:15].mean())
    assert table.loc["sex: female", "photos"] == 5
    assert table.loc["sex: female", "accuracy":].isna().all()
    ages = table.loc[["age: 0–39", "age: 40–59", "age: 60 and over", "age: unknown"], "photos"]
    assert list(ages) == [10, 20, 10, 10]
    assert table["melanoma_sensitivity"].isna()["age: 60 and over"]  # of 3 melanomas
    assert table.loc["confirmed by: histology", "photos"] == 50


def test_a_subgroup_is_compared_with_its_own_baseline() -> None:
    labels = np.array([5] * 27 + [4] * 3 + [5, 4] * 20)
    sites = ["foot"] * 30 + ["back"] * 40
    predictions = predictions_of(np.eye(7)[labels], labels, localization=sites)
    table = subgroup_table(predictions, subgroup_metrics).set_index("group")
    # All right, but 27 of 30 are nevi; means over classes would hide that.
    assert table.loc["site: foot", "baseline"] == 0.9
    assert "balanced_accuracy" not in table
    assert table["melanoma_auc"].isna()["site: foot"]
    assert table.loc["site: back", "melanoma_auc"] == 1


def test_photos_confirmed_by_histology_have_tables_of_their_own() -> None:
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(300) % 3 == 0, 4, 5)
    histology = (labels == 4) | (rng.random(300) < 0.3)
    wrong = histology & (rng.random(300) < 0.4)  # only what was proven is hard
    melanoma = np.where(wrong, 1 - (labels == 4), labels == 4) * 0.8 + 0.1
    probabilities = np.zeros((300, 7))
    probabilities[:, 4], probabilities[:, 5] = melanoma, 1 - melanoma
    kinds = np.where(histology, "histo", "follow_up").tolist()
    point = OperatingPoint(
        group="melanoma", sensitivity=0.9, assured=False, threshold=0.5, low=0.8, high=1
    )
    one = evaluated(predictions_of(probabilities, labels, dx_type=kinds), operating_points=(point,))
    table = TABLES["verified"](one).set_index("metric")
    assert set(table["photos"]) == {histology.sum()}
    assert table["value"]["accuracy"] == pytest.approx(1 - wrong.sum() / histology.sum())
    assert table["value"]["accuracy"] < point_estimates(one.predictions)["accuracy"] - 0.1
    assert table["low"]["accuracy"] < table["value"]["accuracy"]
    row = TABLES["verified_operating_points"](one).iloc[0]
    assert row["others"] == (histology & (labels == 5)).sum()
    assert row["false_alarms"] == (wrong & (labels == 5)).sum()
    # Without that knowledge, or if all were confirmed, there is nothing to add.
    others: list[dict[str, Any]] = [{}, {"dx_type": "histo"}, {"dx_type": "consensus"}]
    for traits in others:
        plain = evaluated(predictions_of(probabilities, labels, **traits))
        for name in ("verified", "verified_operating_points"):
            assert TABLES[name](plain).empty
            assert set(TABLES[name](plain)) == set(TABLES[name](one))


def test_probabilities_of_a_group_that_are_too_high_are_seen() -> None:
    rng = np.random.default_rng(0)
    true = rng.beta(0.5, 2, 1500)
    labels = np.where(rng.random(1500) < true, 4, 5)
    odds = true / (1 - true) * 2  # twice the odds
    probabilities = np.zeros((1500, 7))
    probabilities[:, 4] = odds / (1 + odds)
    probabilities[:, 5] = 1 - probabilities[:, 4]
    table = TABLES["group_calibration"](evaluated(predictions_of(probabilities, labels)))
    rows = table[table["group"] == "melanoma"].set_index("measure")
    assert rows["value"]["slope"] == pytest.approx(1, abs=0.1)
    assert rows["value"]["intercept"] == pytest.approx(-np.log(2), abs=0.12)
    assert (rows["low"] < rows["value"]).all()
    assert (rows["value"] < rows["high"]).all()
    ratio = probabilities[:, 4].sum() / (labels == 4).sum()
    assert rows["value"]["expected_over_observed"] == pytest.approx(ratio)
    assert rows["low"]["expected_over_observed"] > 1
    few = predictions_of(probabilities[:40], np.where(np.arange(40) < 9, 4, 5))
    assert TABLES["group_calibration"](evaluated(few)).empty


def test_a_mean_over_classes_keeps_its_classes() -> None:
    # One photo of a class: a third of the resamples lack it, and would average other classes.
    labels = np.array([5] * 60 + [4] * 30 + [3])
    rng = np.random.default_rng(0)
    predictions = predictions_of(rng.dirichlet(np.ones(7), 91), labels)
    table = metric_table(evaluated(predictions)).set_index("metric")
    assert table.loc["balanced_accuracy", ["low", "high"]].isna().all()
    assert table.loc["macro_f1", ["low", "high"]].isna().all()
    assert table.loc["roc_auc", ["low", "high"]].isna().all()
    assert table.loc["accuracy", ["low", "high"]].notna().all()
    five = predictions_of(rng.dirichlet(np.ones(7), 95), np.append(labels, [3, 3, 3, 3]))
    assert metric_table(evaluated(five)).set_index("metric")["low"].notna()["balanced_accuracy"]


def test_both_decisions_are_scored_from_the_same_probabilities() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([4] * 40 + [5] * 360)
    melanoma = np.clip(np.where(labels == 4, 0.4, 0.05) + rng.normal(0, 0.1, 400), 0, 1)
    probabilities = np.zeros((400, 7))
    probabilities[:, 4], probabilities[:, 5] = melanoma, 1 - melanoma
    rule = {"prevalence": (0, 0, 0, 0, 0.1, 0.9, 0)}
    table = decision_table(evaluated(predictions_of(probabilities, labels), **rule))
    values = {(row["decision"], row["metric"]): row for row in table.to_dict("records")}
    for decision, threshold in (("most-probable", 0.5), ("balanced", 0.1)):
        found = melanoma >= threshold
        row = values[decision, "melanoma_sensitivity"]
        assert row["value"] == pytest.approx(found[:40].mean())
        assert row["low"] < row["value"] <= row["high"]
        accuracy = values[decision, "accuracy"]
        assert accuracy["value"] == pytest.approx((found == (labels == 4)).mean())
        assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    balanced = [values[decision, "balanced_accuracy"]["value"] for decision in DECISIONS]
    assert balanced[1] > balanced[0]


def test_decisions_on_too_few_lesions_have_no_bootstrap_interval() -> None:
    table = decision_table(evaluated(random_predictions(29))).set_index("metric")
    assert table["low"].drop("melanoma_sensitivity").isna().all()
    assert table["low"].notna().sum() == 2  # Wilson's, for both decisions


def test_photos_without_traits_give_an_empty_table_with_columns() -> None:
    table = subgroup_table(random_predictions(), subgroup_metrics)
    assert table.empty
    assert {"group", "accuracy", "melanoma_sensitivity", "malignant_auc"} <= set(table)
