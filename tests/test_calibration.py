import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from lesions.calibration import (
    brier_score,
    calibration_bins,
    expected_calibration_error,
    fit_temperature,
)


def test_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 7))
    labels = np.array([rng.choice(7, p=row) for row in softmax(logits, axis=1)])
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)
    assert fit_temperature(logits / 2, labels) == pytest.approx(0.5, rel=0.05)


def test_temperature_never_does_worse_than_none() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 5, (30, 7)), rng.integers(0, 7, 30)

    def loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[np.arange(30), labels].mean())

    assert loss(fit_temperature(logits, labels)) <= loss(1.0)


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 0])
    # .9 twice, half right; .6 twice, half right: (|.9 - .5| + |.6 - .5|) / 2
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.25)
    assert calibration_bins(probabilities, labels)[:, 2].tolist() == [2, 2]
    # (.1² + .1²) + (.9² + .9²) + (.4² + .4²) + (.6² + .6²), over 4
    assert brier_score(probabilities, labels) == pytest.approx((0.02 + 1.62 + 0.32 + 0.72) / 4)


def test_sure_and_right_is_perfect() -> None:
    certain = np.eye(7)
    assert expected_calibration_error(certain, np.arange(7)) == 0
    assert brier_score(certain, np.arange(7)) == 0
