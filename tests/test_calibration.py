import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from lesions.calibration import (
    brier_score,
    calibration_error,
    fit_temperature,
    reliability,
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


def test_calibration_error_and_brier_score_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]])
    labels = np.array([0, 1, 0])
    weights = np.array([[1.0, 1, 1], [2, 1, 0]])
    # Bins of .8 (half right) and of .6 (all right); then .8 alone, two of three right.
    assert calibration_error(probabilities, labels, weights) == pytest.approx(
        [(2 * 0.3 + 0.4) / 3, 0.8 - 2 / 3]
    )
    assert brier_score(probabilities, labels, weights) == pytest.approx(
        [(0.08 + 1.28 + 0.32) / 3, (2 * 0.08 + 1.28) / 3]
    )


def test_reliability_table() -> None:
    probabilities = np.array([[0.8, 0.2], [0.81, 0.19], [0.6, 0.4], [0.0, 1.0]])
    table = reliability(probabilities, np.array([0, 1, 0, 1]))
    assert table["photos"].tolist() == [1, 1, 1, 1]
    assert table["confidence"].is_monotonic_increasing
    assert table.iloc[-1][["confidence", "right"]].tolist() == [1, 1]
