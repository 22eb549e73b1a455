import numpy as np
import pytest
from helpers import random_predictions
from sklearn import metrics

from lesions.networks import key_metrics


def test_key_metrics_against_scikit_learn_weighted() -> None:
    predictions = random_predictions()
    labels, probabilities = predictions.labels, predictions.probabilities
    # The decision need not be the most probable diagnosis.
    predicted = np.where(predictions.predicted == 5, 4, predictions.predicted)
    weights = np.random.default_rng(1).integers(0, 4, (3, len(labels))).astype(float)
    found = key_metrics.key_metrics(probabilities, predicted, labels, weights)
    assert tuple(found) == key_metrics.NAMES
    for row, weight in enumerate(weights):
        w = {"sample_weight": weight}
        areas = [metrics.roc_auc_score(labels == k, probabilities[:, k], **w) for k in range(7)]
        expected = {
            "accuracy": metrics.accuracy_score(labels, predicted, **w),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted, **w),
            "weighted_f1": metrics.f1_score(labels, predicted, average="weighted", **w),
            "macro_f1": metrics.f1_score(labels, predicted, average="macro", **w),
            "roc_auc": np.mean(areas),
            "melanoma_sensitivity": metrics.recall_score(labels == 4, predicted == 4, **w),
        }
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-9), name


def test_the_json_is_flat_and_rounded() -> None:
    predictions = random_predictions()
    found = key_metrics.rounded_key_metrics(
        predictions.probabilities, predictions.predicted, predictions.labels
    )
    assert tuple(found) == key_metrics.NAMES
    accuracy = (predictions.predicted == predictions.labels).mean()
    assert found["accuracy"] == round(accuracy, 4)


def test_a_diagnosis_that_does_not_occur_has_no_metric() -> None:
    predicted = np.array([5, 4, 2, 2])
    found = key_metrics.rounded_key_metrics(np.eye(7)[predicted], predicted, np.array([5, 5, 2, 2]))
    assert "melanoma_sensitivity" not in found
    assert found["balanced_accuracy"] == 0.75
    nevi = np.array([5, 5])
    alone = key_metrics.rounded_key_metrics(np.eye(7)[nevi], nevi, nevi)
    assert alone["accuracy"] == 1
    assert "roc_auc" not in alone
