import numpy as np
import pytest
from sklearn import metrics

from lesions.scoring.curves import curve


def test_area_against_scikit_learn_with_ties_and_weights() -> None:
    rng = np.random.default_rng(0)
    scores, cases = rng.integers(0, 8, 200) / 8, rng.random(200) < 0.3
    weights = rng.integers(0, 3, (4, 200)).astype(float)
    areas = curve(scores, cases, weights).area()
    for value, weight in zip(areas, weights, strict=True):
        expected = metrics.roc_auc_score(cases, scores, sample_weight=weight)
        assert value == pytest.approx(expected)


def test_without_cases_everything_is_undefined() -> None:
    one = curve(np.array([0.1, 0.2]), np.array([False, False]), np.ones((1, 2)))
    assert np.isnan(one.area()).all()
