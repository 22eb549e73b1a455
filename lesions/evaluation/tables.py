"""The tables of plots/: every table of one model, by name, and how each is made."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from lesions.common.types import Floats
from lesions.evaluation.predictions import Predictions, majority_baseline
from lesions.evaluation.referrals import net_benefit_table, operating_point_table
from lesions.evaluation.selective import selective_table
from lesions.evaluation.subgroups import by_histology, subgroup_table
from lesions.evaluation.thresholds import threshold_table
from lesions.scoring.curves import curve, ratio
from lesions.scoring.fitted import Fitted
from lesions.scoring.guards import enough_cases, enough_groups
from lesions.scoring.intervals import (
    RESAMPLES,
    Interval,
    bootstrap_weights,
    effective_count,
    percentile_interval,
    wilson_interval,
)
from lesions.scoring.metrics import Metric, confusion_matrices, metrics_of, of_confusion
from lesions.scoring.operating_points import score
from lesions.scoring.reliability import group_calibration, reliability_table
from lesions.scoring.rules import DECISIONS

Resamples = dict[str, Floats]  # of each metric, (RESAMPLES,)


class Evaluated(NamedTuple):
    """What the tables of one model are made from."""

    predictions: Predictions
    fitted: Fitted  # on validation
    resamples: Resamples  # from `bootstrap`


def bootstrap(predictions: Predictions) -> Resamples:
    """Compute every metric on resamples of the lesions or patients, the same for every model.

    Returns:
        A dict from metric to its (RESAMPLES,) values. All are NaN where `guards` finds too few
        lesions. A mean over classes is NaN in the resamples that lack a class.
    """
    groups, dataset = predictions.groups.to_numpy(dtype=str), predictions.dataset
    blocks = [predictions.metrics(weights) for weights in bootstrap_weights(groups)]
    values = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
    for key, metric in metrics_of(dataset).items():
        if not (enough_groups(groups) and has_enough_cases(predictions, metric)):
            values[key] = np.full(RESAMPLES, np.nan)
    return values


def has_enough_cases(predictions: Predictions, metric: Metric) -> bool:
    """Say whether there are enough cases of the group that a metric is about, if it is about one.

    An AUC also needs enough photos that are not of the group.
    """
    if metric.group is None:
        return True
    inside = np.isin(predictions.labels, predictions.dataset.indices(metric.group))
    parts = (inside,) if metric.interval == "wilson" else (inside, ~inside)
    return enough_cases(predictions.groups, *parts)


def point_estimates(predictions: Predictions) -> dict[str, float]:
    """Compute every metric on the test set as it is."""
    return {key: float(value[0]) for key, value in predictions.metrics().items()}


def subgroup_metrics(predictions: Predictions) -> dict[str, float]:
    """Compute the metrics that a subgroup can be judged by: NaN where it has too few cases.

    Means over classes are none of them: a subgroup has other classes than the whole.
    """
    values = point_estimates(predictions)
    return {
        key: values[key] if has_enough_cases(predictions, metric) else np.nan
        for key, metric in metrics_of(predictions.dataset).items()
        if key == "accuracy" or metric.group
    }


def interval_of(
    metric: Metric, value: float, predictions: Predictions, resampled: Floats
) -> Interval:
    """Compute the 95 % interval of a metric, by the method that `metrics_of` names; NaN if none."""
    if metric.interval == "wilson" and metric.group is not None:
        cases = np.isin(predictions.labels, predictions.dataset.indices(metric.group))
        return wilson_interval(value, effective_count(predictions.groups[cases]))
    return (np.nan, np.nan) if metric.interval == "none" else percentile_interval(resampled)


def metric_table(evaluated: Evaluated) -> pd.DataFrame:
    """Make the table of metrics.csv: every metric with its 95 % interval and its baseline.

    Returns:
        Columns metric, title, less_is_better, value, low, high, baseline (of always predicting the
        most common class; metrics of calibration have none).
    """
    predictions = evaluated.predictions
    baseline = point_estimates(majority_baseline(predictions))
    metrics, rows = metrics_of(predictions.dataset), []
    for key, value in point_estimates(predictions).items():
        metric = metrics[key]
        low, high = interval_of(metric, value, predictions, evaluated.resamples[key])
        rows.append(
            {
                "metric": key,
                "title": metric.title,
                "less_is_better": metric.less_is_better,
                "value": value,
                "low": low,
                "high": high,
                "baseline": np.nan if metric.less_is_better else baseline[key],
            }
        )
    return pd.DataFrame(rows)


def per_class_table(evaluated: Evaluated) -> pd.DataFrame:
    """Evaluate each class against all others.

    Returns:
        One row per class, in class order: dx, photos, lesions, sensitivity with low and high
        (Wilson's interval for `effective_count` cases), specificity, precision, f1,
        roc_auc, average_precision. Undefined values are NaN: precision if the class is never
        predicted, and all but the counts if no photo has it. So are roc_auc and average_precision
        of too few lesions of the class, or outside it.
    """
    predictions, rows = evaluated.predictions, []
    once = np.ones((1, len(predictions.labels)))
    for index, code in enumerate(predictions.dataset.classes):
        cases, predicted = predictions.labels == index, predictions.predicted == index
        scores = predictions.probabilities[:, index]
        has_both = cases.any() and not cases.all()
        enough = enough_cases(predictions.groups, cases, ~cases)
        found = (cases & predicted).sum()
        groups = predictions.groups[cases]
        sensitivity = float(found / cases.sum()) if cases.any() else np.nan
        low, high = wilson_interval(sensitivity, effective_count(groups))
        rows.append(
            {
                "dx": code,
                "photos": int(cases.sum()),
                "lesions": groups.nunique(),
                "sensitivity": sensitivity,
                "low": low,
                "high": high,
                "specificity": (~cases & ~predicted).sum() / (~cases).sum() if has_both else np.nan,
                "precision": found / predicted.sum() if predicted.any() else np.nan,
                "f1": 2 * found / (cases.sum() + predicted.sum()) if cases.any() else np.nan,
                "roc_auc": float(curve(scores, cases, once).area()[0]) if enough else np.nan,
                "average_precision": average_precision_score(cases, scores) if enough else np.nan,
            }
        )
    return pd.DataFrame(rows)


def confusion_table(evaluated: Evaluated) -> pd.DataFrame:
    """Count photos by class and prediction.

    Returns:
        One row per pair of classes, in class order, including pairs without photos: actual,
        predicted, photos, and share, of the photos of that class (NaN if there are none).
    """
    predictions = evaluated.predictions
    labels, classes = predictions.labels, predictions.dataset.classes
    once = np.ones((1, len(labels)))
    counts = confusion_matrices(predictions.predicted, labels, once, len(classes))[0]
    shares = ratio(counts, counts.sum(axis=1, keepdims=True))
    return pd.DataFrame(
        {
            "actual": np.repeat(classes, len(classes)),
            "predicted": np.tile(classes, len(classes)),
            "photos": counts.astype(int).ravel(),
            "share": shares.ravel(),
        }
    )


def decision_table(evaluated: Evaluated) -> pd.DataFrame:
    """Score the same probabilities under each decision.

    Returns:
        One row per decision and metric: decision, metric, title, value, low and high (95 %).
    """
    predictions, rows = evaluated.predictions, []
    labels, dataset = predictions.labels, predictions.dataset
    metrics, count = metrics_of(dataset), len(dataset.classes)
    groups = predictions.groups.to_numpy(dtype=str)
    for decision in DECISIONS:
        predicted = evaluated.fitted.decide(predictions.probabilities, decision)

        def values(weights: Floats) -> Resamples:
            confusion = confusion_matrices(predicted, labels, weights, count)  # noqa: B023
            return of_confusion(confusion, labels, dataset)

        blocks = [values(weights) for weights in bootstrap_weights(groups)]
        for key, (value,) in values(np.ones((1, len(labels)))).items():
            resampled = np.concatenate([block[key] for block in blocks])
            if not enough_groups(groups):
                resampled = np.full(RESAMPLES, np.nan)
            low, high = interval_of(metrics[key], float(value), predictions, resampled)
            rows.append((decision, key, metrics[key].title, float(value), low, high))
    columns = ["decision", "metric", "title", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def group_calibration_table(evaluated: Evaluated) -> pd.DataFrame:
    """Measure whether the probabilities of each group, which thresholds use, are right.

    Returns:
        One row per group and measure of `group_calibration`: group, measure, title, value, low and
        high (95 %). None for a group with too few lesions in it or outside it.
    """
    predictions, rows = evaluated.predictions, []
    dataset, groups = predictions.dataset, predictions.groups
    for group in dataset.groups:
        members = dataset.indices(group)
        cases = np.isin(predictions.labels, members)
        if not (enough_groups(groups) and enough_cases(groups, cases, ~cases)):
            continue
        scores = score(predictions.probabilities, members)
        samples = bootstrap_weights(groups.to_numpy(dtype=str))
        blocks = [group_calibration(scores, cases, weights) for weights in samples]
        values = group_calibration(scores, cases, np.ones((1, len(cases))))
        for measure, (value,) in values.items():
            low, high = percentile_interval(np.concatenate([block[measure] for block in blocks]))
            title = f"{group}: {measure.replace('_', ' ')}"
            rows.append((group, measure, title, float(value), low, high))
    return pd.DataFrame(rows, columns=["group", "measure", "title", "value", "low", "high"])


def verified(predictions: Predictions) -> Predictions | None:
    """Take the test photos whose class was confirmed by histology.

    Returns:
        None if that is not known, if all were, or if too few lesions were.
    """
    chosen = by_histology(predictions.photos)
    if chosen is None or chosen.all() or not enough_cases(predictions.groups, chosen):
        return None
    return predictions.subset(chosen)


def verified_table(evaluated: Evaluated) -> pd.DataFrame:
    """Make the table of metrics.csv, and its `photos`, for those confirmed by histology alone.

    The diagnosis of the others was seen, not proven, and they are easier: nobody takes a sample of
    a lesion that is plainly harmless.
    """
    subset = verified(evaluated.predictions)
    if subset is None:
        return metric_table(evaluated)[:0].assign(photos=0)
    table = metric_table(Evaluated(subset, evaluated.fitted, bootstrap(subset)))
    return table.assign(photos=len(subset.labels))


def verified_operating_points(evaluated: Evaluated) -> pd.DataFrame:
    """Score the thresholds on the photos confirmed by histology alone."""
    subset = verified(evaluated.predictions)
    points = () if subset is None else evaluated.fitted.operating_points
    return operating_point_table(subset or evaluated.predictions, points)


def calibration_table(evaluated: Evaluated) -> pd.DataFrame:
    """Compare confidence and accuracy before and after calibration: reliability.csv."""
    predictions = evaluated.predictions
    stages = {"before": predictions.uncalibrated, "after": predictions.probabilities}
    return pd.concat(
        reliability_table(probabilities, predictions.labels).assign(calibration=name)
        for name, probabilities in stages.items()
    )


# Every table of plots/, in the order of the pages.
TABLES: dict[str, Callable[[Evaluated], pd.DataFrame]] = {
    "metrics": metric_table,
    "per_class": per_class_table,
    "confusion": confusion_table,
    "decisions": decision_table,
    "operating_points": lambda one: operating_point_table(
        one.predictions, one.fitted.operating_points
    ),
    "net_benefit": lambda one: net_benefit_table(one.predictions),
    "selective": lambda one: selective_table(one.predictions),
    "subgroups": lambda one: subgroup_table(one.predictions, subgroup_metrics),
    "verified": verified_table,
    "verified_operating_points": verified_operating_points,
    "group_calibration": group_calibration_table,
    "thresholds": lambda one: threshold_table(one.predictions),
    "reliability": calibration_table,
}
