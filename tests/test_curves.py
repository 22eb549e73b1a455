import numpy as np
import pytest
from conftest import answers_of, random_answers
from sklearn import metrics

from lesions.curves import curve, table


def test_area_against_scikit_learn_with_ties_and_weights() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 8, 200) / 8, rng.random(200) < 0.3
    weights = rng.integers(0, 3, (4, 200)).astype(float)
    found = curve(scores, truth, weights).area()
    for value, weight in zip(found, weights, strict=True):
        expected = metrics.roc_auc_score(truth, scores, sample_weight=weight)
        assert value == pytest.approx(expected)


def test_specificity_at_a_sensitivity_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = np.array([True, False, True, False, False, False])
    found = curve(scores, truth, np.ones((1, 6)))
    assert found.specificity_at(0.5) == [1.0]
    assert found.specificity_at(0.9) == [0.75]
    assert found.specificity_at(1.0) == [0.75]


def test_without_cases_nothing_is_known() -> None:
    found = curve(np.array([0.1, 0.2]), np.array([False, False]), np.ones((1, 2)))
    assert np.isnan(found.area()).all()
    assert np.isnan(found.specificity_at(0.9)).all()


def test_the_table_keeps_what_the_curve_needs() -> None:
    answers = random_answers(400)
    points = table(answers.probabilities, answers.labels)
    for index, (_, own) in enumerate(points.groupby("dx", sort=False)):
        truth, scores = answers.labels == index, answers.probabilities[:, index]
        assert own[["sensitivity", "false_alarms"]].iloc[0].tolist() == [0, 0]
        assert own[["sensitivity", "false_alarms"]].iloc[-1].tolist() == [1, 1]
        area = np.trapezoid(own["sensitivity"], own["false_alarms"])
        assert area == pytest.approx(metrics.roc_auc_score(truth, scores))
        assert len(own) < truth.sum() * 3 + 3
        precision, sensitivity, _ = metrics.precision_recall_curve(truth, scores)
        for at in (0.2, 0.5, 0.8):
            drawn = own["precision"][own["sensitivity"] <= at].iloc[-1]
            exact = precision[sensitivity <= at][0]
            assert drawn == pytest.approx(exact, abs=0.02)
    none = answers_of(np.eye(7)[[5, 5]], np.array([5, 5]))
    assert table(none.probabilities, none.labels).empty
