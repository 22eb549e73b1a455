"""Reliability: do predictions with confidence p turn out right in a share p of cases?"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions.common.types import Floats, Labels

BINS = 15  # of equal width, as in Guo et al. 2017


def _bin_of(confidence: Floats) -> npt.NDArray[np.int64]:
    """Number the bin of each confidence in [0, 1]; a border belongs to the lower bin."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def calibration_error(probabilities: Floats, labels: Labels, weights: Floats) -> Floats:
    """Compute the expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3).

    The mean over bins of |accuracy - mean confidence|, weighted by their photos.

    Args:
        probabilities: (n, classes), rows sum to 1.
        labels: (n,) class indices.
        weights: (b, n), how often each photo counts in each of b samples.

    Returns:
        (b,), each between 0 and 1.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    in_bin = _bin_of(confidence)[:, None] == np.arange(BINS)
    gap = weights @ (in_bin * (correct - confidence)[:, None])  # (b, BINS)
    return np.asarray(np.abs(gap).sum(axis=1) / weights.sum(axis=1))


def brier_score(probabilities: Floats, labels: Labels, weights: Floats) -> Floats:
    """Compute the mean squared distance of the probabilities from the truth (Brier 1950).

    Arguments and shape as `calibration_error`; between 0 (certain and right) and 2 (certain and
    wrong).
    """
    truth = np.eye(probabilities.shape[1])[labels]
    squared = ((probabilities - truth) ** 2).sum(axis=1)
    return np.asarray(weights @ squared / weights.sum(axis=1))


def reliability_table(probabilities: Floats, labels: Labels) -> pd.DataFrame:
    """Compare confidence and accuracy: one row per bin that has photos.

    Returns:
        Columns confidence (mean), accuracy and photos.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = _bin_of(confidence)
    photos = pd.DataFrame({"bin": bins, "confidence": confidence, "accuracy": correct})
    by_bin = photos.groupby("bin")
    table = by_bin[["confidence", "accuracy"]].mean().assign(photos=by_bin.size())
    return table.reset_index(drop=True)
