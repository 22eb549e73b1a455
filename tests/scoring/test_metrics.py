import numpy as np
import pytest
from helpers import DATASET, random_predictions
from sklearn import metrics

from lesions.dataset.description import Description
from lesions.scoring.metrics import (
    all_metrics,
    confusion_matrices,
    key_metrics,
    metrics_of,
    of_confusion,
    rounded_key_metrics,
)

NAMES = (
    *("accuracy", "balanced_accuracy", "weighted_f1", "macro_f1", "roc_auc"),
    "melanoma_sensitivity",
)


def test_key_metrics_against_scikit_learn_weighted() -> None:
    predictions = random_predictions()
    labels, probabilities = predictions.labels, predictions.probabilities
    # The decision need not be the most probable diagnosis.
    predicted = np.where(predictions.predicted == 5, 4, predictions.predicted)
    weights = np.random.default_rng(1).integers(0, 4, (3, len(labels))).astype(float)
    found = key_metrics(probabilities, predicted, labels, DATASET, weights)
    assert tuple(found) == NAMES
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
    found = rounded_key_metrics(
        predictions.probabilities, predictions.predicted, predictions.labels, DATASET
    )
    assert tuple(found) == NAMES
    accuracy = (predictions.predicted == predictions.labels).mean()
    assert found["accuracy"] == round(accuracy, 4)


def test_a_diagnosis_that_does_not_occur_has_no_metric() -> None:
    predicted = np.array([5, 4, 2, 2])
    found = rounded_key_metrics(np.eye(7)[predicted], predicted, np.array([5, 5, 2, 2]), DATASET)
    assert "melanoma_sensitivity" not in found
    assert found["balanced_accuracy"] == 0.75
    nevi = np.array([5, 5])
    alone = rounded_key_metrics(np.eye(7)[nevi], nevi, nevi, DATASET)
    assert alone["accuracy"] == 1
    assert "roc_auc" not in alone


def test_every_metric_is_in_the_table_in_its_order() -> None:
    one = random_predictions()
    weights = np.random.default_rng(1).integers(0, 4, (3, 300)).astype(float)
    found = all_metrics(
        one.probabilities, one.uncalibrated, one.predicted, one.labels, DATASET, weights
    )
    assert list(found) == list(metrics_of(DATASET))
    malignant, share = np.isin(one.labels, [0, 1, 4]), one.probabilities[:, [0, 1, 4]].sum(axis=1)
    for value, weight in zip(found["malignant_auc"], weights, strict=True):
        expected = metrics.roc_auc_score(malignant, share, sample_weight=weight)
        assert value == pytest.approx(expected)


def test_a_dataset_without_groups_has_no_metric_about_them() -> None:
    plain = Description(title="t", classes=("a", "b"), groups={}, watched=None)
    assert [key for key in metrics_of(plain) if key.endswith(("_sensitivity", "_auc"))] == [
        "roc_auc"
    ]


def test_a_watched_group_of_several_classes_is_found_as_any_of_them() -> None:
    two = Description(title="t", classes=("a", "b", "c"), groups={"bad": ("a", "b")}, watched="bad")
    labels, predicted = np.array([0, 0, 1, 1, 2]), np.array([1, 2, 1, 2, 0])
    confusion = confusion_matrices(predicted, labels, np.ones((1, 5)), 3)
    assert of_confusion(confusion, np.array([0, 1]), two)["bad_sensitivity"] == pytest.approx([0.5])
