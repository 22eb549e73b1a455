import numpy as np
import pytest
from helpers import predictions_of

from lesions.evaluation.referrals import RISKS, net_benefit_table, operating_point_table
from lesions.scoring.intervals import wilson_interval
from lesions.scoring.operating_points import OperatingPoint


def melanoma_and_nevus(melanoma: list[float]) -> np.ndarray:
    probabilities = np.zeros((len(melanoma), 7))
    probabilities[:, 4] = melanoma
    probabilities[:, 5] = 1 - probabilities[:, 4]
    return probabilities


def point(threshold: float) -> OperatingPoint:
    return OperatingPoint(
        group="melanoma", sensitivity=0.9, threshold=threshold, assured=False, low=0.7, high=0.97
    )


def test_an_operating_point_by_hand() -> None:
    predictions = predictions_of(
        melanoma_and_nevus([0.9, 0.3, 0.29, 0.5, 0.1, 0.1]), np.array([4, 4, 4, 5, 5, 5])
    )
    row = operating_point_table(predictions, [point(0.3)]).iloc[0]
    assert (row["found"], row["cases"], row["false_alarms"], row["others"]) == (2, 3, 1, 3)
    assert row["sensitivity"] == pytest.approx(2 / 3)
    assert row["specificity"] == pytest.approx(2 / 3)
    assert (row["low"], row["high"]) == pytest.approx(wilson_interval(2 / 3, 3))
    assert row["referred_per_found"] == 1.5
    assert (row["expected_low"], row["expected_high"]) == (0.7, 0.97)


def test_a_test_set_without_melanomas_and_a_model_without_points() -> None:
    predictions = predictions_of(melanoma_and_nevus([0.9, 0.1]), np.array([5, 5]))
    row = operating_point_table(predictions, [point(0.5)]).iloc[0]
    assert np.isnan(row["sensitivity"])
    assert np.isnan(row["referred_per_found"])
    assert row["specificity"] == 0.5
    assert "aim" in operating_point_table(predictions, [])


def test_net_benefit_by_hand() -> None:
    predictions = predictions_of(melanoma_and_nevus([0.9, 0.15, 0.5, 0.1]), np.array([4, 4, 5, 5]))
    table = net_benefit_table(predictions)
    assert list(table["group"].unique()) == ["melanoma", "malignant"]
    of_group = table[table["group"] == "melanoma"]
    benefit = of_group.set_index(["risk", "strategy"])["net_benefit"]
    # At a risk of .2: one of two melanomas and one of two nevi are referred; the odds are 1/4.
    assert benefit[0.2, "model"] == pytest.approx(1 / 4 - 1 / 4 * 1 / 4)
    assert benefit[0.2, "refer all"] == pytest.approx(1 / 2 - 1 / 2 * 1 / 4)
    assert (benefit.xs("refer none", level="strategy") == 0).all()
    assert len(benefit) == 3 * len(RISKS)


def test_calibrated_probabilities_are_of_use_at_every_risk() -> None:
    rng = np.random.default_rng(0)
    risk = rng.beta(0.5, 2, 20_000)
    labels = np.where(rng.random(20_000) < risk, 4, 5)
    table = net_benefit_table(predictions_of(melanoma_and_nevus(risk.tolist()), labels))
    table = table[table["group"] == "malignant"]
    by_strategy = table.pivot(index="risk", columns="strategy", values="net_benefit")
    best = by_strategy[["refer all", "refer none"]].max(axis=1)
    assert (by_strategy["model"] >= best - 0.001).all()
    assert by_strategy["model"][0.3] > best[0.3] + 0.02


def test_a_decision_curve_has_an_interval_where_there_are_enough_lesions() -> None:
    rng = np.random.default_rng(0)
    risk = rng.beta(0.5, 2, 300)
    labels = np.where(rng.random(300) < risk, 4, 5)
    table = net_benefit_table(predictions_of(melanoma_and_nevus(risk.tolist()), labels))
    model = table[table["strategy"] == "model"]
    assert (model["low"] < model["net_benefit"]).all()
    assert (model["net_benefit"] < model["high"]).all()
    assert table.loc[table["strategy"] != "model", "low"].isna().all()
    few = net_benefit_table(predictions_of(melanoma_and_nevus([0.9, 0.1] * 9), np.tile([4, 5], 9)))
    assert few["low"].isna().all()
