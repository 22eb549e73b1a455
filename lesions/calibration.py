"""Calibration: do answers given with probability p turn out right in a share p of cases?"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from lesions.diagnoses import Labels

Floats = npt.NDArray[np.floating]
BINS = 15  # of equal width, as Guo et al.


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Find the temperature that, dividing the logits, gives the least cross-entropy.

    Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv 1706.04599), section 4.2.
    Fitted on validation photos. The order of probabilities, and so every answer, stays.

    Args:
        logits: (n, classes).
        labels: (n,) class indices.

    Returns:
        A temperature between 0.05 and 20; above 1 means that the network was too sure.
    """
    chosen = np.arange(len(labels)), labels
    logits = logits.astype(np.float64)
    found = minimize_scalar(
        lambda log_t: -log_softmax(logits / np.exp(log_t), axis=1)[chosen].mean(),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return round(float(np.exp(found.x)), 6)


def _bins(confidence: Floats) -> npt.NDArray[np.int64]:
    """Number the bin of each confidence in [0, 1]; a border belongs to the bin below it."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def calibration_error(probabilities: Floats, labels: Labels, weights: Floats) -> Floats:
    """Find the expected calibration error (Guo et al. 2017, equation 3).

    The mean over bins of |share of right answers - mean confidence|, weighted by their photos.

    Args:
        probabilities: (n, classes).
        labels: (n,).
        weights: (b, n), how often each photo counts in each of b samples.

    Returns:
        (b,), each between 0 and 1.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    of_bin = _bins(confidence)[:, None] == np.arange(BINS)
    gap = weights @ (of_bin * (right - confidence)[:, None])  # (b, BINS)
    return np.asarray(np.abs(gap).sum(axis=1) / weights.sum(axis=1))


def brier_score(probabilities: Floats, labels: Labels, weights: Floats) -> Floats:
    """Find the mean squared distance of the probabilities from the truth (Brier 1950).

    Args and shape as `calibration_error`; between 0 (sure and right) and 2 (sure and wrong).
    """
    truth = np.eye(probabilities.shape[1])[labels]
    squared = ((probabilities - truth) ** 2).sum(axis=1)
    return np.asarray(weights @ squared / weights.sum(axis=1))


def reliability(probabilities: Floats, labels: Labels) -> pd.DataFrame:
    """Set confidence beside success: a row a bin that holds photos.

    Returns:
        Columns confidence (mean), right (share of right answers) and photos.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    photos = pd.DataFrame({"bin": _bins(confidence), "confidence": confidence, "right": right})
    by_bin = photos.groupby("bin")
    table = by_bin[["confidence", "right"]].mean().assign(photos=by_bin.size())
    return table.reset_index(drop=True)
