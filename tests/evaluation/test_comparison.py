from typing import Any

import numpy as np
import pytest
from helpers import predictions_of, random_predictions

from lesions.common.errors import LesionsError
from lesions.evaluation.comparison import compare, mcnemar, verdicts
from lesions.evaluation.predictions import Predictions
from lesions.evaluation.tables import bootstrap, point_estimates


def compared(one: Predictions, other: Predictions, start: str = "random") -> tuple[Any, str]:
    predictions = {"ResNet50": one, "MobileNetV2": other}
    samples = {name: bootstrap(own) for name, own in predictions.items()}
    table = compare(predictions, samples)
    (sentence,) = verdicts(table, len(one.labels), {"ResNet50": "random", "MobileNetV2": start})
    return table.set_index("metric"), sentence


def test_mcnemar_by_hand() -> None:
    labels = np.full(12, 5)
    one = predictions_of(np.eye(7)[[5] * 11 + [4]], labels)
    other = predictions_of(np.eye(7)[[5] * 2 + [4] * 9 + [5]], labels)
    found = mcnemar(one, other)
    assert (found["only_first"], found["only_second"]) == (9, 1)
    assert found["p"] == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(one, one)["p"] == 1


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
    labels = np.full(36, 5)
    lesions = [f"L{row // 4}" for row in range(36)]
    one = predictions_of(np.eye(7)[labels], labels, lesions)
    other = predictions_of(np.eye(7)[np.where(np.arange(36) < 16, 4, 5)], labels, lesions)
    assert mcnemar(one, other) == {"only_first": 4, "only_second": 0, "p": 0.125}


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
    predictions = {"resnet50": random_predictions(), "mobilenetv2": random_predictions(seed=1)}
    predictions["a third"] = random_predictions(seed=2)
    samples = {name: bootstrap(own) for name, own in predictions.items()}
    pairs = compare(predictions, samples)[["first", "second"]].drop_duplicates()
    assert len(pairs) == 3


def test_other_photos_are_no_comparison() -> None:
    one, other = random_predictions(), random_predictions(200)
    with pytest.raises(LesionsError, match="different photos"):
        compare({"a": one, "b": other}, {"a": {}, "b": {}})
