import numpy as np
import pandas as pd
import pytest
from helpers import DATASET
from scipy.special import softmax

from lesions.scoring.fitted import fit


def test_all_that_decides_is_fitted_where_each_lesion_counts_once() -> None:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.full(200, 5), np.full(12, 4), rng.integers(0, 7, 88)])
    logits = rng.normal(0, 1, (300, 7)) + 3 * np.eye(7)[labels]
    lesions = pd.Series([f"L{min(row, 250)}" for row in range(300)])  # the last 50 are of one
    distances = rng.random(300)
    trained = np.full(7, 100.0)
    found = fit(logits, distances, labels, lesions, DATASET, trained, 4)
    assert found.views == 4
    weights = np.where(np.arange(300) < 250, 1, 1 / 50)
    share = weights[labels == 5].sum() / 251
    assert found.prevalence[5] == pytest.approx(share, abs=1e-5)
    assert found.cases["melanoma"] == lesions[labels == 4].nunique()
    assert found.distance_threshold == pytest.approx(np.quantile(distances, 0.95), abs=1e-6)
    expected = softmax(logits / found.temperature + np.array(found.bias), axis=1)
    np.testing.assert_allclose(found.calibration.probabilities(logits), expected)
    confidence = np.quantile(expected.max(axis=1), 0.05)
    assert found.confidence_threshold == pytest.approx(confidence, abs=1e-5)
    # Training on balanced classes made nevi too improbable; the bias knows.
    assert found.bias[5] == max(found.bias)
    assert found.decide(expected, "balanced").tolist() == (
        (expected / np.array(found.prevalence)).argmax(axis=1).tolist()
    )


def test_a_group_with_nine_cases_has_no_threshold() -> None:
    labels = np.where(np.arange(100) < 9, 4, 5)
    logits = np.random.default_rng(0).normal(0, 1, (100, 7))
    lesions = pd.Series([f"L{row}" for row in range(100)])
    found = fit(logits, np.ones(100), labels, lesions, DATASET, np.ones(7), 1)
    assert found.cases == {"melanoma": 9, "malignant": 9}
    assert found.operating_points == ()
