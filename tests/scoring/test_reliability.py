import numpy as np
import pytest

from lesions.scoring.reliability import brier_score, calibration_error, reliability_table


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
    table = reliability_table(probabilities, np.array([0, 1, 0, 1]))
    assert table["photos"].tolist() == [1, 1, 1, 1]
    assert table["confidence"].is_monotonic_increasing
    assert table.iloc[-1][["confidence", "accuracy"]].tolist() == [1, 1]
