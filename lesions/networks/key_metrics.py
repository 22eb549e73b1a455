"""The six key metrics: training computes them on validation photos, evaluation on test photos."""

import numpy as np

from lesions.dataset.diagnoses import CODES, Labels
from lesions.networks.curves import Floats, curve, ratio

MELANOMA = CODES.index("mel")
NAMES = (
    "accuracy",
    "balanced_accuracy",
    "weighted_f1",
    "macro_f1",
    "roc_auc",
    "melanoma_sensitivity",
)


def confusion_matrices(predicted: Labels, labels: Labels, weights: Floats) -> Floats:
    """Count photos by diagnosis (rows) and prediction (columns).

    Args:
        predicted, labels: (n,) class indices.
        weights: (b, n), how often each photo counts in each of b samples.

    Returns:
        (b, classes, classes).
    """
    cells = np.zeros((len(labels), len(CODES) ** 2))
    cells[np.arange(len(labels)), labels * len(CODES) + predicted] = 1
    return (weights @ cells).reshape(-1, len(CODES), len(CODES))


def accuracy(confusion: Floats) -> Floats:
    """Share of correct predictions: (b, classes, classes) to (b,)."""
    return ratio(_correct(confusion).sum(axis=1), confusion.sum(axis=(1, 2)))


def sensitivities(confusion: Floats) -> Floats:
    """Share of each diagnosis that is found (recall): (b, classes, classes) to (b, classes)."""
    return ratio(_correct(confusion), confusion.sum(axis=2))


def f1_scores(confusion: Floats) -> Floats:
    """F1 of each class, NaN if it neither occurs nor is predicted: to (b, classes)."""
    return ratio(2 * _correct(confusion), confusion.sum(axis=2) + confusion.sum(axis=1))


def weighted_f1(confusion: Floats) -> Floats:
    """Mean F1, each class weighted by its photos: (b, classes, classes) to (b,)."""
    photos = confusion.sum(axis=2)
    total = (photos * np.nan_to_num(f1_scores(confusion))).sum(axis=1)
    return ratio(total, photos.sum(axis=1))


def _correct(confusion: Floats) -> Floats:
    return np.asarray(confusion.diagonal(axis1=1, axis2=2))


def mean_of_known(values: Floats) -> Floats:
    """Average each row over its finite values: (b, k) to (b,)."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


def of_confusion(confusion: Floats) -> dict[str, Floats]:
    """Compute the key metrics that depend on the predicted diagnoses alone.

    Args:
        confusion: (b, classes, classes), from `confusion_matrices`.

    Returns:
        A dict from metric to its (b,) values, as `key_metrics`.
    """
    return {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": mean_of_known(sensitivities(confusion)),
        "weighted_f1": weighted_f1(confusion),
        "macro_f1": mean_of_known(f1_scores(confusion)),
        "melanoma_sensitivity": sensitivities(confusion)[:, MELANOMA],
    }


def key_metrics(
    probabilities: Floats, predicted: Labels, labels: Labels, weights: Floats | None = None
) -> dict[str, Floats]:
    """Compute the key metrics, each between 0 and 1.

    Balanced accuracy is the mean sensitivity over the diagnoses that occur (ISIC 2018 Task 3).
    ROC AUC is one-vs-rest, averaged over the diagnoses that occur. Macro F1 averages over the
    diagnoses that occur or are predicted.

    Args:
        probabilities: (n, classes), rows sum to 1; for ROC AUC.
        predicted: (n,) class indices; for all others.
        labels: (n,) class indices.
        weights: (b, n), how often each photo counts in each of b samples; by default once, b = 1.

    Returns:
        A dict from metric to its (b,) values, in the order of NAMES; NaN where the diagnosis that
        it needs does not occur.

    >>> probabilities = np.eye(7)[[4, 5, 5, 5]]  # predicted: one melanoma, three nevi
    >>> metrics = key_metrics(probabilities, probabilities.argmax(1), np.array([4, 4, 5, 5]))
    >>> {name: round(float(value[0]), 3) for name, value in list(metrics.items())[:3]}
    {'accuracy': 0.75, 'balanced_accuracy': 0.75, 'weighted_f1': 0.733}
    """
    weights = np.ones((1, len(labels))) if weights is None else weights
    values = of_confusion(confusion_matrices(predicted, labels, weights))
    areas = [
        curve(probabilities[:, index], labels == index, weights).area()
        for index in range(len(CODES))
    ]
    values["roc_auc"] = mean_of_known(np.stack(areas, axis=1))
    return {name: values[name] for name in NAMES}


def rounded_key_metrics(
    probabilities: Floats, predicted: Labels, labels: Labels
) -> dict[str, float]:
    """Compute the key metrics for a JSON file: 4 decimal places, without those that are NaN."""
    values = key_metrics(probabilities, predicted, labels)
    return {
        name: round(float(value[0]), 4) for name, value in values.items() if np.isfinite(value[0])
    }
