"""Comparison: whether one model is better than another on the same test photos."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from lesions.common.errors import LesionsError
from lesions.common.types import Bools, Floats
from lesions.evaluation.predictions import Predictions
from lesions.evaluation.tables import point_estimates
from lesions.scoring.intervals import MIN_CASES, percentile_interval
from lesions.scoring.metrics import Metric, metrics_of

COLUMNS = ("first", "second", "metric", "title", "confidence", "difference", "low", "high")


def compared_metrics(predictions: Predictions) -> list[Metric]:
    """List the metrics that models are compared by."""
    return [metric for metric in metrics_of(predictions.dataset).values() if metric.compared]


def compare(
    predictions: Mapping[str, Predictions], resamples: Mapping[str, Mapping[str, Floats]]
) -> pd.DataFrame:
    """Compare every two models.

    Args:
        predictions: of each model, all for the same photos in one order.
        resamples: of each model, from `tables.bootstrap`. Because the resamples are the same, the
            intervals are those of paired differences.

    Returns:
        One row per pair and metric: first, second, metric, title, confidence (of the interval, in
        percent), difference (first - second), low, high, significant; and for accuracy only_first,
        only_second and p from `mcnemar`. A difference is significant if 0 is outside the interval,
        which is Bonferroni's correction of 95 % for the number of metrics. Low and high are NaN if
        the models differ on fewer than MIN_CASES of the lesions that count: resamples of so few
        would all look alike.
    """
    rows = []
    for first, second in combinations(predictions, 2):
        a, b = predictions[first], predictions[second]
        if list(a.photos["image_id"]) != list(b.photos["image_id"]):
            raise LesionsError(f"{first} and {second} predicted different photos.")
        values_a, values_b = point_estimates(a), point_estimates(b)
        metrics = compared_metrics(a)
        confidence = 1 - 0.05 / len(metrics)
        for metric in metrics:
            counts = np.ones(len(a.labels), dtype=bool)
            if metric.group is not None:
                counts = np.isin(a.labels, a.dataset.indices(metric.group))
            differences = resamples[first][metric.key] - resamples[second][metric.key]
            low, high = percentile_interval(differences, confidence)
            if sum(discordant_groups(a, b, counts)) < MIN_CASES:
                low = high = np.nan
            rows.append(
                {
                    "first": first,
                    "second": second,
                    "metric": metric.key,
                    "title": metric.title,
                    "confidence": round(100 * confidence, 2),
                    "difference": values_a[metric.key] - values_b[metric.key],
                    "low": low,
                    "high": high,
                    "significant": low > 0 or high < 0,
                    **(mcnemar(a, b) if metric.key == "accuracy" else {}),
                }
            )
    return pd.DataFrame(rows, columns=[*COLUMNS, "significant", "only_first", "only_second", "p"])


def discordant_groups(a: Predictions, b: Predictions, chosen: Bools) -> tuple[int, int]:
    """Count the lesions, among the chosen photos, of which one model gets more photos right."""
    lead = (a.predicted == a.labels).astype(int) - (b.predicted == b.labels).astype(int)
    groups = a.groups.to_numpy()
    by_group = pd.Series(lead[chosen]).groupby(groups[chosen]).sum()
    return int((by_group > 0).sum()), int((by_group < 0).sum())


def mcnemar(a: Predictions, b: Predictions) -> dict[str, float]:
    """Test whether each model is right, where the other is wrong, equally often.

    McNemar's exact test (1947, doi 10.1007/BF02295996). Each lesion counts once, because photos
    of one lesion are not independent.
    """
    only_first, only_second = discordant_groups(a, b, np.ones(len(a.labels), dtype=bool))
    total = only_first + only_second
    p = float(binomtest(only_first, total).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def verdicts(
    table: pd.DataFrame, photos: int, starts: Mapping[str, str], groups: str = "lesion"
) -> list[str]:
    """Say in one sentence per pair of models what the comparison shows.

    Args:
        table: from `compare`, with the titles of models.
        photos: how many photos were predicted.
        starts: title of each model to the weights that its training started from.
        groups: what was resampled: lesion or patient.
    """
    sentences = []
    for key, pair in table.groupby(["first", "second"], sort=False):
        a, b = map(str, key)
        known, unknown = pair[pair["low"].notna()], pair[pair["low"].isna()]
        parts = []
        for better, sign in ((a, 1), (b, -1)):
            won = known[known["significant"] & (sign * known["difference"] > 0)]
            if len(won):
                parts.append(f"{better} is better in {_join(_differences(won))}")
        if len(same := known[~known["significant"]]):
            names = _join(list(same["title"]))
            parts.append(f"{a} and {b} do not differ significantly in {names}")
        if len(unknown):
            names = _join(list(unknown["title"]))
            parts.append(f"{a} and {b} differ on too few {groups}s to compare {names}")
        sentences.append(f"On these {photos:,} test photos, {'; '.join(parts)}.")
        if starts[a] != starts[b]:
            sentences[-1] += (
                f" But they did not start from equal weights ({a}: {starts[a]}, {b}: {starts[b]}), "
                "so this says nothing about the networks themselves."
            )
    return sentences


def _differences(rows: pd.DataFrame) -> list[str]:
    """Write each metric with its difference, without sign, and its interval."""
    ends = rows[["low", "high"]].abs()
    return [
        f"{title} (by {difference:.3f}, {confidence:g} % interval {near:.3f} to {far:.3f})"
        for title, confidence, difference, near, far in zip(
            rows["title"],
            rows["confidence"],
            rows["difference"].abs(),
            ends.min(axis=1),
            ends.max(axis=1),
            strict=True,
        )
    ]


def _join(parts: list[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
