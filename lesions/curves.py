"""Curves: what a threshold on a probability catches and what it lets through."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions.diagnoses import CODES, Labels

Floats = npt.NDArray[np.floating]


class Curve(NamedTuple):
    """Counts at every threshold from the highest score down, in b weighted samples."""

    caught: Floats  # (b, t) weight of the cases at or above each threshold
    alarms: Floats  # (b, t) weight of the others at or above it

    @property
    def sensitivity(self) -> Floats:
        """(b, t); NaN in a sample without cases."""
        return _share(self.caught, self.caught[:, -1:])

    @property
    def false_alarms(self) -> Floats:
        """(b, t) 1 - specificity; NaN in a sample of cases alone."""
        return _share(self.alarms, self.alarms[:, -1:])

    @property
    def precision(self) -> Floats:
        """(b, t)."""
        return _share(self.caught, self.caught + self.alarms)

    def area(self) -> Floats:
        """Area under sensitivity over false alarms, by trapezia: (b,)."""
        across = np.diff(self.false_alarms, axis=1, prepend=0)
        height = self.sensitivity
        before = np.concatenate([np.zeros_like(height[:, :1]), height[:, :-1]], axis=1)
        return np.asarray((across * (height + before) / 2).sum(axis=1))

    def specificity_at(self, sensitivity: float) -> Floats:
        """Highest specificity at which at least this sensitivity is reached: (b,)."""
        enough = self.sensitivity >= sensitivity - 1e-12
        return np.asarray(np.where(enough, 1 - self.false_alarms, -np.inf).max(axis=1)) + np.where(
            enough.any(axis=1), 0, np.nan
        )


def curve(scores: Floats, truth: npt.NDArray[np.bool_], weights: Floats) -> Curve:
    """Count cases and others above each threshold.

    Args:
        scores: (n,) higher for what is more likely a case; equal ones share a threshold.
        truth: (n,) which are cases.
        weights: (b, n) how often each counts in each of b samples.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    sorted_weights, cases = weights[:, order], truth[order]
    return Curve(
        np.cumsum(sorted_weights * cases, axis=1)[:, last],
        np.cumsum(sorted_weights * ~cases, axis=1)[:, last],
    )


def _share(part: Floats, whole: Floats) -> Floats:
    part, whole = np.broadcast_arrays(part, whole)
    undefined = np.full(part.shape, np.nan)
    return np.asarray(np.divide(part, whole, out=undefined, where=whole > 0))


def table(probabilities: Floats, labels: Labels) -> pd.DataFrame:
    """Lay out both curves of each diagnosis against all others.

    Returns:
        Columns dx, threshold, sensitivity, false_alarms, precision: from a threshold that nothing
        reaches (its precision is the next one's) down, thinned out; none of a
        diagnosis without or with all photos.
    """
    parts = []
    for index, code in enumerate(CODES):
        truth, scores = labels == index, probabilities[:, index]
        if truth.all() or not truth.any():
            continue
        found = curve(scores, truth, np.ones((1, len(labels))))
        thresholds = np.unique(scores)[::-1]
        caught, alarms = found.caught[0], found.alarms[0]
        # Dropped are points on a straight piece of the ROC curve: its ends draw it. Precision bends
        # there all the same, so one point for each half a percent of sensitivity stays.
        ahead = np.diff(np.stack([caught, alarms]), axis=1).astype(bool)
        corner = np.ones(len(thresholds), dtype=bool)
        corner[1:-1] = (ahead[:, 1:] != ahead[:, :-1]).any(axis=0) | (ahead[0] & ahead[1])[1:]
        step = np.floor(200 * found.sensitivity[0])
        corner[1:] |= np.diff(step) > 0
        points = pd.DataFrame(
            {
                "threshold": thresholds,
                "sensitivity": found.sensitivity[0],
                "false_alarms": found.false_alarms[0],
                "precision": found.precision[0],
            }
        )
        start = points[:1].assign(threshold=np.nan, sensitivity=0.0, false_alarms=0.0)
        parts.append(pd.concat([start, points[corner]]).assign(dx=code))
    columns = ["dx", "threshold", "sensitivity", "false_alarms", "precision"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)
