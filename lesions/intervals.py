"""Intervals: how far a figure could lie from what one test set shows."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Interval = tuple[float, float]  # 95 %: lowest, highest

RESAMPLES = 2000
SEED = 0  # the same resamples for every model, so that differences are paired
_ROOM = 4_000_000  # weights held at a time: 32 MB
_Z = 1.959964  # of the normal distribution at .975


def resamples(lesions: npt.NDArray[np.str_]) -> "Iterator[Floats]":
    """Draw lesions with replacement, RESAMPLES times as many as there are.

    A lesion comes with all its photos, for photos of one lesion are no independent witnesses
    (cluster bootstrap, Field and Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x).

    Args:
        lesions: (n,) the lesion of each photo.

    Yields:
        (b, n) float64, how often each photo is in each of the next b resamples.
    """
    names, of_photo = np.unique(lesions, return_inverse=True)
    rng = np.random.default_rng(SEED)
    part = max(1, _ROOM // len(lesions))
    for start in range(0, RESAMPLES, part):
        count = min(part, RESAMPLES - start)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
        yield drawn[:, of_photo].astype(np.float64)


def percentile(values: Floats, share: float = 0.95) -> Interval:
    """Take the middle share of a figure's resamples; those where it is undefined do not count."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def wilson(share: float, count: int) -> Interval:
    """Bound a share of `count` independent cases (Wilson 1927); not of width 0 at 0 or 1."""
    if not count or not np.isfinite(share):
        return np.nan, np.nan
    shrink = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / shrink
    reach = _Z / shrink * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(0.0, float(centre - reach)), min(1.0, float(centre + reach))
