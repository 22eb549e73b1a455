"""The metrics: one table of their titles and rules, and how they are computed.

Training computes the key metrics on validation photos, evaluation all metrics on test photos.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lesions.common.types import Floats, Labels
from lesions.dataset.description import Description
from lesions.scoring.curves import curve, ratio
from lesions.scoring.operating_points import score
from lesions.scoring.reliability import brier_score, calibration_error

DECIMALS = 4  # of the key metrics in JSON files


@dataclass(frozen=True)
class Metric:
    """One metric; every table, page and comparison loops over these."""

    key: str  # in metrics/ and plots/
    title: str
    is_key: bool = False  # in metrics/*.json
    compared: bool = False  # in the comparison of models
    less_is_better: bool = False
    # Calibration error has no interval, because its resamples are biased upwards.
    interval: Literal["bootstrap", "wilson", "none"] = "bootstrap"
    group: str | None = None  # the metric is about its photos, so it needs some


def metrics_of(dataset: Description) -> dict[str, Metric]:
    """List the metrics of a dataset, in the order in which they are shown."""
    metrics = [
        Metric("accuracy", "accuracy", is_key=True, compared=True),
        Metric("balanced_accuracy", "balanced accuracy", is_key=True, compared=True),
        Metric("weighted_f1", "weighted F1", is_key=True, compared=True),
        Metric("macro_f1", "macro F1", is_key=True),
        Metric("roc_auc", "ROC AUC", is_key=True),
    ]
    if watched := dataset.watched:
        key, title = f"{watched}_sensitivity", f"{watched} sensitivity"
        metrics.append(Metric(key, title, True, True, interval="wilson", group=watched))
    metrics += [Metric(f"{name}_auc", f"ROC AUC, {name}", group=name) for name in dataset.groups]
    for suffix, words in (("", ""), ("_before", " before calibration")):
        metrics += [
            Metric(
                f"calibration_error{suffix}",
                f"calibration error{words}",
                less_is_better=True,
                interval="none",
            ),
            Metric(f"brier_score{suffix}", f"Brier score{words}", less_is_better=True),
        ]
    return {metric.key: metric for metric in metrics}


def confusion_matrices(predicted: Labels, labels: Labels, weights: Floats, classes: int) -> Floats:
    """Count photos by class (rows) and prediction (columns).

    Args:
        predicted, labels: (n,) class indices.
        weights: (b, n), how often each photo counts in each of b samples.
        classes: how many there are.

    Returns:
        (b, classes, classes).
    """
    cells = np.zeros((len(labels), classes**2))
    cells[np.arange(len(labels)), labels * classes + predicted] = 1
    return (weights @ cells).reshape(-1, classes, classes)


def accuracy(confusion: Floats) -> Floats:
    """Share of correct predictions: (b, classes, classes) to (b,)."""
    return ratio(_correct(confusion).sum(axis=1), confusion.sum(axis=(1, 2)))


def sensitivities(confusion: Floats) -> Floats:
    """Share of each class that is found (recall): (b, classes, classes) to (b, classes)."""
    return ratio(_correct(confusion), confusion.sum(axis=2))


def group_sensitivity(confusion: Floats, members: list[int]) -> Floats:
    """Share of a group's photos that are predicted as any of its classes: to (b,)."""
    of_group = confusion[:, members]
    return ratio(of_group[:, :, members].sum(axis=(1, 2)), of_group.sum(axis=(1, 2)))


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


def where_all_occur(values: Floats, confusion: Floats, labels: Labels) -> Floats:
    """Replace a mean over classes by NaN in the samples that lack a class of the test set.

    Such a sample would estimate the mean over other classes.

    Args:
        values: (b,).
        confusion: (b, classes, classes).
        labels: (n,) class indices of the whole test set.
    """
    lacking = (confusion.sum(axis=2)[:, np.unique(labels)] == 0).any(axis=1)
    return np.where(lacking, np.nan, values)


def of_confusion(confusion: Floats, labels: Labels, dataset: Description) -> dict[str, Floats]:
    """Compute the key metrics that depend on the predicted classes alone.

    Args:
        confusion: (b, classes, classes), from `confusion_matrices`.
        labels: (n,) class indices of the whole test set.
        dataset: names the watched group.

    Returns:
        A dict from metric to its (b,) values, as `key_metrics`.
    """
    balanced = mean_of_known(sensitivities(confusion))
    values = {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": where_all_occur(balanced, confusion, labels),
        "weighted_f1": weighted_f1(confusion),
        "macro_f1": where_all_occur(mean_of_known(f1_scores(confusion)), confusion, labels),
    }
    if watched := dataset.watched:
        sensitivity = group_sensitivity(confusion, dataset.indices(watched))
        values[f"{watched}_sensitivity"] = sensitivity
    return values


def key_metrics(
    probabilities: Floats,
    predicted: Labels,
    labels: Labels,
    dataset: Description,
    weights: Floats | None = None,
) -> dict[str, Floats]:
    """Compute the key metrics, each between 0 and 1.

    Balanced accuracy is the mean sensitivity over the classes that occur (the metric of ISIC 2018
    Task 3). ROC AUC is one-vs-rest, averaged over the classes that occur. Macro F1 averages over
    the classes that occur or are predicted.

    Args:
        probabilities: (n, classes), rows sum to 1; for ROC AUC.
        predicted: (n,) class indices; for all others.
        labels: (n,) class indices.
        dataset: names the watched group.
        weights: (b, n), how often each photo counts in each of b samples; by default once, b = 1.

    Returns:
        A dict from metric to its (b,) values, in the order of `metrics_of`; NaN where a class
        that it needs does not occur.
    """
    weights = np.ones((1, len(labels))) if weights is None else weights
    classes = probabilities.shape[1]
    confusion = confusion_matrices(predicted, labels, weights, classes)
    areas = [
        curve(probabilities[:, index], labels == index, weights).area() for index in range(classes)
    ]
    mean_area = mean_of_known(np.stack(areas, axis=1))
    values = of_confusion(confusion, labels, dataset)
    values["roc_auc"] = where_all_occur(mean_area, confusion, labels)
    return {key: values[key] for key, metric in metrics_of(dataset).items() if metric.is_key}


def rounded_key_metrics(
    probabilities: Floats, predicted: Labels, labels: Labels, dataset: Description
) -> dict[str, float]:
    """Compute the key metrics for a JSON file: 4 decimal places, without those that are NaN."""
    values = key_metrics(probabilities, predicted, labels, dataset)
    return {
        key: round(float(value[0]), DECIMALS)
        for key, value in values.items()
        if np.isfinite(value[0])
    }


def all_metrics(
    probabilities: Floats,
    uncalibrated: Floats,
    predicted: Labels,
    labels: Labels,
    dataset: Description,
    weights: Floats,
) -> dict[str, Floats]:
    """Compute every metric, each photo counted as often as its weight says.

    Args:
        probabilities, uncalibrated: (n, classes), rows sum to 1.
        predicted, labels: (n,) class indices.
        dataset: names the groups.
        weights: (b, n), one row per sample.

    Returns:
        A dict from metric to its (b,) values, keys and order as `metrics_of`; NaN where a class
        that it needs does not occur.
    """
    values = key_metrics(probabilities, predicted, labels, dataset, weights)
    for group in dataset.groups:
        members = dataset.indices(group)
        one = curve(score(probabilities, members), np.isin(labels, members), weights)
        values[f"{group}_auc"] = one.area()
    for suffix, used in (("", probabilities), ("_before", uncalibrated)):
        values[f"calibration_error{suffix}"] = calibration_error(used, labels, weights)
        values[f"brier_score{suffix}"] = brier_score(used, labels, weights)
    return values
