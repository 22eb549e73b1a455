from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import card_of, predictions_of, random_predictions
from scipy.special import ndtri

from lesions.common.errors import LesionsError
from lesions.evaluation.comparison import compare, count_leads, mcnemar, verdicts
from lesions.evaluation.predictions import Predictions
from lesions.evaluation.tables import Evaluated, bootstrap, point_estimates
from lesions.scoring.operating_points import OperatingPoint


def evaluated(one: Predictions, **fitted: Any) -> Evaluated:
    return Evaluated(one, card_of(**fitted).use(1), bootstrap(one))


def compared(one: Predictions, other: Predictions, start: str = "random") -> tuple[Any, str]:
    table = compare({"ResNet50": evaluated(one), "MobileNetV2": evaluated(other)})
    (sentence,) = verdicts(table, len(one.labels), {"ResNet50": "random", "MobileNetV2": start})
    return table.set_index("metric"), sentence


def test_mcnemar_by_hand() -> None:
    found = mcnemar(9, 1)
    assert (found["only_first"], found["only_second"]) == (9, 1)
    assert found["p"] == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(0, 0)["p"] == 1


def test_a_model_does_not_differ_from_itself() -> None:
    one = random_predictions()
    table, sentence = compared(one, one)
    assert (table["difference"] == 0).all()
    assert (table[["low", "high"]].isna()).all(axis=None)
    assert "ResNet50 and MobileNetV2 differ on too few lesions to compare accuracy" in sentence
    assert "better" not in sentence


@pytest.mark.parametrize(("photos", "lost"), [(1, 1), (9, 4), (1000, 5), (1000, 9)])
def test_a_handful_of_disagreements_shows_nothing(photos: int, lost: int) -> None:
    labels = np.full(photos, 5)
    predicted = np.where(np.arange(photos) < lost, 4, 5)
    table, sentence = compared(
        predictions_of(np.eye(7)[labels], labels), predictions_of(np.eye(7)[predicted], labels)
    )
    assert table["low"].isna().all()
    assert "better" not in sentence


def test_photos_of_one_lesion_count_once() -> None:
    lesions = pd.Series([f"L{row // 4}" for row in range(36)])
    right, wrong_16 = np.ones(36, bool), np.arange(36) >= 16
    assert count_leads(right, wrong_16, lesions, right) == (4, 0)
    assert count_leads(right, wrong_16, lesions, np.arange(36) >= 8) == (2, 0)


def test_a_clearly_better_model_is_named() -> None:
    labels = random_predictions().labels
    good = predictions_of(np.eye(7)[labels] * 0.9 + 0.1 / 7, labels)
    poor = random_predictions()
    table, sentence = compared(poor, good)
    assert table["difference"]["accuracy"] == pytest.approx(point_estimates(poor)["accuracy"] - 1)
    assert (table["high"] < 0).all()
    assert sentence.startswith("On these 300 test photos, MobileNetV2 is better in accuracy")


@pytest.mark.parametrize(("ahead", "behind", "significant"), [(58, 38, False), (66, 34, True)])
def test_four_metrics_are_compared(ahead: int, behind: int, significant: bool) -> None:
    labels = np.full(1001, 5)
    rows = np.arange(1001)
    one = predictions_of(np.eye(7)[np.where(rows < behind, 2, 5)], labels)
    other = predictions_of(np.eye(7)[np.where(rows >= 1001 - ahead, 2, 5)], labels)
    table, sentence = compared(one, other)
    # The interval that is shown is the one that decides; 95 % alone would be significant.
    assert (table["low"]["accuracy"] > 0) == significant
    resamples = bootstrap(one)["accuracy"] - bootstrap(other)["accuracy"]
    assert np.quantile(resamples, 0.025) > 0
    assert table["significant"]["accuracy"] == significant
    assert ("ResNet50 is better" in sentence) == significant


def test_unequal_starts_are_a_condition_of_the_verdict() -> None:
    labels = random_predictions().labels
    good = predictions_of(np.eye(7)[labels] * 0.9 + 0.1 / 7, labels)
    _, equal = compared(random_predictions(), good)
    _, unequal = compared(random_predictions(), good, start="imagenet")
    condition = "not start from equal weights (ResNet50: random, MobileNetV2: imagenet)"
    assert condition in unequal
    assert "equal weights" not in equal
    assert "98.75 % interval" in equal


def test_pairing_narrows_the_interval() -> None:
    one = random_predictions()
    predicted = one.predicted.copy()
    predicted[:20] = (predicted[:20] + 1) % 7
    other = predictions_of(np.eye(7)[predicted], one.labels)
    table, _ = compared(one, other)
    apart = np.std(bootstrap(one)["accuracy"]) * 2 * 1.96 * np.sqrt(2)
    width = (table["high"] - table["low"])["accuracy"]
    assert width < apart / 2


def test_a_third_model_joins() -> None:
    table = compare({str(seed): evaluated(random_predictions(seed=seed)) for seed in range(3)})
    assert len(table[["first", "second"]].drop_duplicates()) == 3
    # Twelve intervals, of four metrics and three pairs: together they are wrong in 5 %.
    assert set(table["confidence"]) == {round(100 * (1 - 0.05 / 12), 3)}


def test_thresholds_are_compared_in_pairs() -> None:
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(400) < 60, 4, 5)

    def model(threshold: float, noise: float) -> Evaluated:
        melanoma = np.clip(np.where(labels == 4, 0.6, 0.3) + rng.normal(0, noise, 400), 0, 1)
        probabilities = np.zeros((400, 7))
        probabilities[:, 4], probabilities[:, 5] = melanoma, 1 - melanoma
        plain: dict[str, Any] = {"group": "melanoma", "sensitivity": 0.9, "low": 0.8, "high": 1.0}
        points = (
            OperatingPoint(**plain, threshold=threshold, assured=False),
            OperatingPoint(**plain, threshold=0.0, assured=True),  # not compared
        )
        return evaluated(predictions_of(probabilities, labels), operating_points=points)

    models = {"a": model(0.45, 0.05), "b": model(0.35, 0.2)}
    table = compare(models).set_index("metric")
    names = [name for name in table.index if "threshold" in name]
    assert names == ["melanoma_threshold_sensitivity", "melanoma_threshold_specificity"]
    scores = {name: one.predictions.probabilities[:, 4] for name, one in models.items()}
    found = (scores["a"][:60] >= 0.45).mean() - (scores["b"][:60] >= 0.35).mean()
    assert table["difference"][names[0]] == pytest.approx(found)
    spared = (scores["a"][60:] < 0.45).mean() - (scores["b"][60:] < 0.35).mean()
    row = table.loc[names[1]]
    assert row["difference"] == pytest.approx(spared)
    assert row["low"] < spared < row["high"]
    assert row["significant"]
    assert set(table["confidence"]) == {round(100 * (1 - 0.05 / 6), 3)}


def test_a_detectable_difference_is_mostly_found() -> None:
    rng = np.random.default_rng(0)
    labels = np.full(300, 5)

    def table(share: float) -> Any:
        lost, gained = rng.random(300) < 0.1 + share, rng.random(300) < 0.1
        one = predictions_of(np.eye(7)[np.where(gained, 4, 5)], labels)
        other = predictions_of(np.eye(7)[np.where(lost, 4, 5)], labels)
        return compared(one, other)[0].loc["accuracy"]

    expected = (ndtri(1 - 0.0125 / 2) + ndtri(0.8)) * np.sqrt(2 * 0.1 * 0.9 / 300)
    assert np.mean([table(0)["detectable"] for _ in range(5)]) == pytest.approx(expected, rel=0.1)
    power = np.mean([table(expected)["significant"] for _ in range(40)])
    # Below .8, because the larger difference varies more than the one it was computed from.
    assert 0.5 < power < 0.95


def test_other_photos_are_no_comparison() -> None:
    one, other = random_predictions(), random_predictions(200)
    with pytest.raises(LesionsError, match="different photos"):
        compare({"a": evaluated(one), "b": evaluated(other)})
