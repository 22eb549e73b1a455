import numpy as np
import pytest
from scipy.special import softmax

from lesions.networks.calibration import cross_entropy, fit_temperature


def test_temperature_is_recovered() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 7))
    labels = np.array([rng.choice(7, p=row) for row in softmax(logits, axis=1)])
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)
    assert fit_temperature(logits / 2, labels) == pytest.approx(0.5, rel=0.05)


def test_temperature_never_increases_the_cross_entropy() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 5, (30, 7)), rng.integers(0, 7, 30)
    temperature = fit_temperature(logits, labels)
    assert cross_entropy(logits / temperature, labels) <= cross_entropy(logits, labels)


def test_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.5], [0.8, 0.2]]))
    assert cross_entropy(logits, np.array([0, 1])) == pytest.approx(-np.log([0.5, 0.2]).mean())
