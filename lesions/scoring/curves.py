"""ROC and precision-recall curves, for many weighted samples of the same photos at once."""

from typing import NamedTuple

import numpy as np

from lesions.common.types import Bools, Floats


class Curve(NamedTuple):
    """Weighted counts at every threshold from the highest score down, in b samples."""

    true_positives: Floats  # (b, t) weight of the cases at or above each threshold
    false_positives: Floats  # (b, t) weight of the other photos at or above it

    @property
    def sensitivity(self) -> Floats:
        """(b, t); NaN in a sample without cases."""
        return ratio(self.true_positives, self.true_positives[:, -1:])

    @property
    def false_positive_rate(self) -> Floats:
        """(b, t) 1 - specificity; NaN in a sample that has only cases."""
        return ratio(self.false_positives, self.false_positives[:, -1:])

    @property
    def precision(self) -> Floats:
        """(b, t)."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    def area(self) -> Floats:
        """Area under the ROC curve, by the trapezoidal rule: (b,)."""
        width = np.diff(self.false_positive_rate, axis=1, prepend=0)
        right = self.sensitivity
        left = np.concatenate([np.zeros_like(right[:, :1]), right[:, :-1]], axis=1)
        return np.asarray((width * (right + left) / 2).sum(axis=1))


def curve(scores: Floats, cases: Bools, weights: Floats) -> Curve:
    """Count the photos above each threshold.

    Args:
        scores: (n,) higher means more likely a case; equal scores share a threshold.
        cases: (n,) which photos are cases.
        weights: (b, n) how often each photo counts in each of b samples.

    >>> one = curve(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]), np.ones((1, 3)))
    >>> one.sensitivity.tolist(), one.false_positive_rate.tolist(), one.area().tolist()
    ([[0.5, 0.5, 1.0]], [[0.0, 1.0, 1.0]], [0.5])
    """
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    sorted_weights, sorted_cases = weights[:, order], cases[order]
    return Curve(
        np.cumsum(sorted_weights * sorted_cases, axis=1)[:, last_of_equals],
        np.cumsum(sorted_weights * ~sorted_cases, axis=1)[:, last_of_equals],
    )


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide; NaN where `whole` is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    undefined = np.full(part.shape, np.nan)
    return np.asarray(np.divide(part, whole, out=undefined, where=whole > 0))
