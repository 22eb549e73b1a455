import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from lesions.calibration import fit_temperature


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
