from dataclasses import replace

import numpy as np
import pytest
from helpers import predictions_of

from lesions.evaluation.ensemble import average
from lesions.evaluation.predictions import Predictions


def noisy(labels: np.ndarray, seed: int) -> Predictions:
    """Calibrated probabilities of melanoma from one noisy look at each photo."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(0, 1, len(labels)) + 1.5 * (labels == 4)
    odds = np.exp(1.5 * looks - 1.5**2 / 2) * 0.25 / 0.75  # unit normals, 1.5 apart
    probabilities = np.zeros((len(labels), 7))
    probabilities[:, 4] = odds / (1 + odds)
    probabilities[:, 5] = 1 - probabilities[:, 4]
    return predictions_of(probabilities, labels)


def test_the_mean_of_two_models_is_better_than_both_and_calibrated() -> None:
    labels = np.where(np.random.default_rng(9).random(4000) < 0.25, 4, 5)
    known, tested = labels[:2000], labels[2000:]
    validation = {name: noisy(known, seed) for name, seed in (("a", 0), ("b", 1))}
    test = {name: noisy(tested, seed) for name, seed in (("a", 2), ("b", 3))}
    found, fitted = average(validation, test, "most-probable", 4)
    score = found.metrics()
    for one in test.values():
        alone = one.metrics()
        assert score["accuracy"][0] > alone["accuracy"][0] + 0.01
        assert score["brier_score"][0] < alone["brier_score"][0] - 0.01
    # The mean is not confident enough, which its own calibration corrects.
    assert fitted.temperature < 0.9
    assert score["brier_score"][0] < score["brier_score_before"][0]
    assert score["melanoma_auc"][0] == pytest.approx(
        replace(found, probabilities=found.uncalibrated).metrics()["melanoma_auc"][0]
    )
    assert fitted.views == 4
    assert {point.sensitivity for point in fitted.operating_points} == {0.8, 0.9, 0.95}
    assert list(found.photos["image_id"]) == list(test["a"].photos["image_id"])
