"""Confidence intervals: how far a metric could be from its value on one test set."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions.common.types import Floats
from lesions.scoring.guards import MAX_UNDEFINED

Interval = tuple[float, float]  # lowest, highest

RESAMPLES = 2000
SEED = 0  # the same resamples for every model, so that differences are paired
_BLOCK = 4_000_000  # weights held in memory at a time: 32 MB
_Z = 1.959964  # the .975 quantile of the normal distribution


def bootstrap_weights(groups: npt.NDArray[np.str_]) -> Iterator[Floats]:
    """Resample the lesions or patients with replacement, RESAMPLES times.

    A group is resampled with all its photos, because photos of one lesion are not independent
    (cluster bootstrap, Field and Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x).

    Args:
        groups: (n,) the lesion or patient of each photo.

    Yields:
        (b, n) float64, how often each photo is in each of the next b resamples.

    >>> weights = next(bootstrap_weights(np.array(["a", "a", "b"])))
    >>> weights.shape, bool((weights[:, 0] == weights[:, 1]).all())
    ((2000, 3), True)
    """
    names, of_photo = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(SEED)
    block = max(1, _BLOCK // len(groups))
    for start in range(0, RESAMPLES, block):
        count = min(block, RESAMPLES - start)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
        yield drawn[:, of_photo].astype(np.float64)


def percentile_interval(values: Floats, confidence: float = 0.95) -> Interval:
    """Take the middle share of a metric's resamples; those that are NaN do not count.

    Returns:
        NaN if over MAX_UNDEFINED of them are NaN, or if all are the same.

    >>> low, high = percentile_interval(np.arange(1001))
    >>> round(low, 3), round(high, 3)
    (25.0, 975.0)
    """
    known = values[np.isfinite(values)]
    if len(known) < (1 - MAX_UNDEFINED) * len(values) or np.ptp(known) < 1e-9:
        return np.nan, np.nan
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def effective_count(groups: "pd.Series[str]") -> float:
    """Compute how many independent photos the photos of some groups are worth.

    Kish's effective sample size (1965): photos² / sum of (photos of each group)². It assumes the
    worst case, in which all photos of a group get the same prediction.

    >>> effective_count(pd.Series(["a", "b", "c", "c"]))  # four photos of three lesions
    2.6666666666666665
    """
    sizes = groups.value_counts().to_numpy()
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def wilson_interval(share: float, count: float) -> Interval:
    """Compute the 95 % interval of a share of `count` independent cases (Wilson 1927).

    Unlike a bootstrap, it keeps a width at shares of 0 and 1.

    >>> low, high = wilson_interval(15 / 20, 20)  # 15 of 20 cases found
    >>> round(low, 2), round(high, 2)
    (0.53, 0.89)
    """
    if not count or not np.isfinite(share):
        return np.nan, np.nan
    scale = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / scale
    half_width = _Z / scale * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(0.0, float(centre - half_width)), min(1.0, float(centre + half_width))
