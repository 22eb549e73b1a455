import numpy as np
import pytest
from scipy.special import softmax

from lesions.scoring.calibration import (
    Calibration,
    cross_entropy,
    fit_calibration,
    known_shift,
)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that follow them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 7))
    return logits, np.array([rng.choice(7, p=row) for row in softmax(logits, axis=1)])


def test_temperature_and_biases_are_recovered() -> None:
    logits, labels = drawn(20_000)
    once = np.ones(len(labels))
    wrong = np.array([0.5, -0.5, 1, 0, 0, -1, 0])  # sums to 0, as the fitted biases do
    for temperature in (3, 0.5):
        found = fit_calibration((logits + wrong) * temperature, labels, once, np.zeros(7))
        assert found.temperature == pytest.approx(temperature, rel=0.05)
        np.testing.assert_allclose(found.bias, -wrong, atol=0.1)


def test_a_class_with_few_photos_keeps_a_small_bias() -> None:
    logits, labels = drawn(2000)
    logits[:, 3] -= 8  # hardly ever predicted, and
    few = np.flatnonzero(labels != 3)[:300]  # absent from validation
    found = fit_calibration(logits[few], labels[few], np.ones(300), np.zeros(7))
    assert abs(found.bias[3]) < 0.5


def test_without_photos_a_bias_is_what_is_known_beforehand() -> None:
    logits, labels = drawn(2000)
    few = np.flatnonzero(labels != 3)[:300]
    trained, counts = np.full(7, 100.0), np.bincount(labels[few], minlength=7).astype(float)
    expected = known_shift(trained, counts)
    assert expected[3] == pytest.approx(np.log((0.5 / 303.5) / (1 / 7)))
    found = fit_calibration(logits[few], labels[few], np.ones(300), expected)
    ignorant = fit_calibration(logits[few], labels[few], np.ones(300), np.zeros(7))
    assert abs(found.bias[3] - expected[3]) < 1.5
    # A class that validation lacks is less probable than without that knowledge.
    rest = np.arange(7) != 3
    assert found.bias[3] - np.mean(np.array(found.bias)[rest]) < ignorant.bias[3] - 1
    assert known_shift(trained, trained) == pytest.approx(np.zeros(7))


def test_calibration_never_increases_the_cross_entropy() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 5, (30, 7)), rng.integers(0, 7, 30)
    found = fit_calibration(logits, labels, np.ones(30), np.zeros(7))
    calibrated = np.log(found.probabilities(logits))
    assert cross_entropy(calibrated, labels) <= cross_entropy(logits, labels)


def test_photos_of_a_lesion_count_once() -> None:
    logits, labels = drawn(300)
    once = fit_calibration(logits, labels, np.ones(300), np.zeros(7))
    copies = np.repeat(np.arange(300), np.where(np.arange(300) < 100, 3, 1))
    weights = np.where(copies < 100, 1 / 3, 1.0)
    again = fit_calibration(logits[copies], labels[copies], weights, np.zeros(7))
    np.testing.assert_allclose(again.bias, once.bias, atol=1e-3)
    assert again.temperature == pytest.approx(once.temperature, abs=1e-3)


def test_probabilities_by_hand() -> None:
    logits = np.array([[2.0, 0.0]])
    np.testing.assert_allclose(
        Calibration(2.0, (0.0, 1.0)).probabilities(logits), [[0.5, 0.5]], atol=1e-12
    )


def test_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.5], [0.8, 0.2]]))
    labels = np.array([0, 1])
    assert cross_entropy(logits, labels) == pytest.approx(-np.log([0.5, 0.2]).mean())
    weighted = cross_entropy(logits, labels, np.array([3.0, 1.0]))
    assert weighted == pytest.approx(-(3 * np.log(0.5) + np.log(0.2)) / 4)
