"""Calibration: do answers given with probability p turn out right in a share p of cases?"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from lesions.diagnoses import Labels

Floats = npt.NDArray[np.floating]


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


def calibration_bins(probabilities: Floats, labels: Labels, bins: int = 15) -> Floats:
    """Sort answers into bins of equal width by their confidence.

    Returns:
        (k, 3): mean confidence, share of right answers and number of photos of each bin that
        holds any.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    held = [place == index for index in range(bins) if (place == index).any()]
    return np.array([[confidence[one].mean(), right[one].mean(), one.sum()] for one in held])


def expected_calibration_error(probabilities: Floats, labels: Labels, bins: int = 15) -> float:
    """Average gap between confidence and share of right answers, weighed by photos: 0 to 1.

    Naeini et al. 2015; bins of equal width as in Guo et al. 2017.
    """
    confidence, right, count = calibration_bins(probabilities, labels, bins).T
    return float(np.abs(confidence - right) @ count / count.sum())


def brier_score(probabilities: Floats, labels: Labels) -> float:
    """Mean squared distance from the one-hot truth, summed over classes: 0 (best) to 2."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())
