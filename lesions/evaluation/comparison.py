"""Comparison: whether one model is better than another on the same test photos."""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import binomtest

from lesions.common.errors import LesionsError
from lesions.common.types import Bools, Floats
from lesions.evaluation.referrals import SENSITIVITY, shown_points
from lesions.evaluation.tables import Evaluated, point_estimates
from lesions.scoring.guards import MIN_CASES, enough_cases, enough_groups
from lesions.scoring.intervals import bootstrap_weights, percentile_interval
from lesions.scoring.metrics import metrics_of
from lesions.scoring.operating_points import score

POWER = 0.8  # with which a difference of the size `detectable` is found
COLUMNS = (
    *("first", "second", "metric", "title", "confidence", "difference", "low", "high"),
    *("detectable", "significant", "only_first", "only_second", "p"),
)


class _Compared(NamedTuple):
    """One number by which two models are compared."""

    metric: str
    title: str
    difference: float
    resamples: Floats  # of the difference
    leads: tuple[int, int]  # lesions on which only the first, only the second is right


def compare(models: Mapping[str, Evaluated]) -> pd.DataFrame:
    """Compare every two models.

    By the metrics that `metrics_of` names, and, where both have a threshold that finds 90 % of a
    group in validation, by its sensitivity and specificity.

    Args:
        models: all for the same photos in one order. Because the resamples are the same, the
            intervals are those of paired differences.

    Returns:
        One row per pair and metric: first, second, metric, title, confidence (of the interval, in
        percent), difference (first - second), low, high, detectable, significant; and for accuracy
        only_first, only_second and p from `mcnemar`. A difference is significant if 0 is outside
        the interval, which is Bonferroni's correction of 95 % for the number of rows: of metrics
        times pairs. `detectable` is the least true difference that a test set like this would show
        as significant with a probability of POWER (both from the normal distribution and the
        standard deviation of the resamples). Low, high and detectable are NaN if the models differ
        on fewer than MIN_CASES of the lesions that count: resamples of so few would all look alike.
    """
    found = [
        (first, second, compared)
        for first, second in combinations(models, 2)
        for compared in _compare_two(models[first], models[second])
    ]
    confidence = 1 - 0.05 / max(1, len(found))
    rows = []
    for first, second, one in found:
        low = high = detectable = np.nan
        if sum(one.leads) >= MIN_CASES and np.isfinite(one.resamples).any():
            low, high = percentile_interval(one.resamples, confidence)
            quantiles = ndtri((1 + confidence) / 2) + ndtri(POWER)
            detectable = float(quantiles * np.nanstd(one.resamples))
        test = mcnemar(*one.leads) if one.metric == "accuracy" else {}
        rows.append(
            {
                "first": first,
                "second": second,
                "metric": one.metric,
                "title": one.title,
                "confidence": round(100 * confidence, 3),
                "difference": one.difference,
                "low": low,
                "high": high,
                "detectable": detectable,
                "significant": low > 0 or high < 0,
                **test,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _compare_two(a: Evaluated, b: Evaluated) -> list[_Compared]:
    """Compute all differences of two models."""
    one, other = a.predictions, b.predictions
    if list(one.photos["image_id"]) != list(other.photos["image_id"]):
        raise LesionsError("the models predicted different photos.")
    found = []

    # The metrics.
    values, values_b = point_estimates(one), point_estimates(other)
    right, right_b = one.predicted == one.labels, other.predicted == other.labels
    for metric in metrics_of(one.dataset).values():
        if metric.compared:
            counted = np.ones(len(one.labels), dtype=bool)
            if metric.group is not None:
                counted = np.isin(one.labels, one.dataset.indices(metric.group))
            found.append(
                _Compared(
                    metric.key,
                    metric.title,
                    values[metric.key] - values_b[metric.key],
                    a.resamples[metric.key] - b.resamples[metric.key],
                    count_leads(right, right_b, one.groups, counted),
                )
            )

    # Who is found and who is referred, at the thresholds.
    points, points_b = shown_points(a.fitted), shown_points(b.fitted)
    for group in one.dataset.groups if enough_groups(one.groups) else ():
        if group not in points or group not in points_b:
            continue
        members = one.dataset.indices(group)
        cases = np.isin(one.labels, members)
        referred = score(one.probabilities, members) >= points[group].threshold
        referred_b = score(other.probabilities, members) >= points_b[group].threshold
        for name, counted, good, good_b in (
            ("sensitivity", cases, referred, referred_b),
            ("specificity", ~cases, ~referred, ~referred_b),
        ):
            if enough_cases(one.groups, counted):
                lead = (good.astype(float) - good_b)[counted]
                weights = bootstrap_weights(one.groups.to_numpy(dtype=str))
                resamples = [w[:, counted] @ lead / w[:, counted].sum(axis=1) for w in weights]
                found.append(
                    _Compared(
                        f"{group}_threshold_{name}",
                        f"{group} {name} at the threshold for {SENSITIVITY:.2f}",
                        float(lead.mean()),
                        np.concatenate(resamples),
                        count_leads(good, good_b, one.groups, counted),
                    )
                )
    return found


def count_leads(
    right: Bools, right_b: Bools, groups: "pd.Series[str]", counted: Bools
) -> tuple[int, int]:
    """Count the lesions of which the first, and the second, model gets more photos right.

    Args:
        right, right_b: (n,) whether each model is right.
        groups: (n,) the lesion or patient of each photo.
        counted: (n,) which photos count.
    """
    lead = right.astype(int) - right_b.astype(int)
    by_group = pd.Series(lead[counted]).groupby(groups.to_numpy()[counted]).sum()
    return int((by_group > 0).sum()), int((by_group < 0).sum())


def mcnemar(only_first: int, only_second: int) -> dict[str, float]:
    """Test whether each model is right, where the other is wrong, equally often.

    McNemar's exact test (1947, doi 10.1007/BF02295996). Each lesion counts once, because photos
    of one lesion are not independent.

    >>> mcnemar(6, 0)
    {'only_first': 6, 'only_second': 0, 'p': 0.03125}
    """
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
