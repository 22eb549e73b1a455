"""Comparison: whether one model is better than another on the same test photos."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from lesions.common.errors import LesionsError
from lesions.evaluation.intervals import Floats, percentile_interval
from lesions.evaluation.metrics import MIN_CASES, TITLES, point_estimates
from lesions.evaluation.predictions import Predictions
from lesions.networks.key_metrics import MELANOMA

METRICS = ("weighted_f1", "balanced_accuracy", "accuracy", "melanoma_sensitivity")
CONFIDENCE = 1 - 0.05 / len(METRICS)  # of each interval, so that all four hold with 95 %


def compare(
    predictions: Mapping[str, Predictions], resamples: Mapping[str, Mapping[str, Floats]]
) -> pd.DataFrame:
    """Compare every two models.

    Args:
        predictions: title of each model to its predictions, all for the same photos in one order.
        resamples: of each model, from `metrics.bootstrap`. Because the resamples are the same, the
            intervals are those of paired differences.

    Returns:
        One row per pair and metric: first, second, metric, difference (first - second), low and
        high (98.75 %), significant; and for accuracy only_first, only_second and p from `mcnemar`.
        A difference is significant if 0 is outside this interval (Bonferroni's correction of 95 %
        for four metrics). Low and high are NaN if the models differ on fewer than MIN_CASES of the
        lesions that count: resamples of so few would all look alike.
    """
    rows = []
    for first, second in combinations(predictions, 2):
        a, b = predictions[first], predictions[second]
        if list(a.photos["image_id"]) != list(b.photos["image_id"]):
            raise LesionsError(f"{first} and {second} predicted different photos.")
        values_a, values_b = point_estimates(a), point_estimates(b)
        melanomas = a.labels == MELANOMA
        for name in METRICS:
            counts = melanomas if name == "melanoma_sensitivity" else np.ones_like(melanomas)
            differences = resamples[first][name] - resamples[second][name]
            low, high = percentile_interval(differences, CONFIDENCE)
            if sum(discordant_lesions(a, b, counts)) < MIN_CASES:
                low = high = np.nan
            rows.append(
                {
                    "first": first,
                    "second": second,
                    "metric": name,
                    "difference": values_a[name] - values_b[name],
                    "low": low,
                    "high": high,
                    "significant": low > 0 or high < 0,
                    **(mcnemar(a, b) if name == "accuracy" else {}),
                }
            )
    columns = ["first", "second", "metric", "difference", "low", "high", "significant"]
    return pd.DataFrame(rows, columns=[*columns, "only_first", "only_second", "p"])


def discordant_lesions(
    a: Predictions, b: Predictions, chosen: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    """Count the lesions, among the chosen photos, of which one model gets more photos right."""
    lead = (a.predicted == a.labels).astype(int) - (b.predicted == b.labels).astype(int)
    lesions = a.photos["lesion_id"].to_numpy()
    by_lesion = pd.Series(lead[chosen]).groupby(lesions[chosen]).sum()
    return int((by_lesion > 0).sum()), int((by_lesion < 0).sum())


def mcnemar(a: Predictions, b: Predictions) -> dict[str, float]:
    """Test whether each model is right, where the other is wrong, equally often.

    McNemar's exact test (1947, doi 10.1007/BF02295996). Each lesion counts once, because photos
    of one lesion are not independent.
    """
    only_first, only_second = discordant_lesions(a, b, np.ones(len(a.labels), dtype=bool))
    total = only_first + only_second
    p = float(binomtest(only_first, total).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def verdicts(table: pd.DataFrame, photos: int, starts: Mapping[str, str]) -> list[str]:
    """Say in one sentence per pair of models what the comparison shows.

    Args:
        table: from `compare`.
        photos: how many photos were predicted.
        starts: title of each model to the weights that its training started from.
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
            names = _join([TITLES[name] for name in same["metric"]])
            parts.append(f"{a} and {b} do not differ significantly in {names}")
        if len(unknown):
            names = _join([TITLES[name] for name in unknown["metric"]])
            parts.append(f"{a} and {b} differ on too few lesions to compare {names}")
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
        f"{TITLES[name]} (by {difference:.3f}, 98.75 % interval {near:.3f} to {far:.3f})"
        for name, difference, near, far in zip(
            rows["metric"],
            rows["difference"].abs(),
            ends.min(axis=1),
            ends.max(axis=1),
            strict=True,
        )
    ]


def _join(parts: list[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
