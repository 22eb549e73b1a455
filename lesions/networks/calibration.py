"""Calibration: a temperature that makes probabilities agree with how often they are right."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from lesions.dataset.diagnoses import Labels


def cross_entropy(logits: npt.NDArray[np.floating], labels: Labels) -> float:
    """Compute the mean cross-entropy of (n, classes) logits and (n,) class indices."""
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: npt.NDArray[np.floating], labels: Labels) -> float:
    """Find the temperature by which to divide the logits for the least cross-entropy.

    Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv 1706.04599), section 4.2. It
    is fitted on validation photos. The order of a photo's probabilities stays, so no prediction
    changes.

    Args:
        logits: (n, classes).
        labels: (n,) class indices.

    Returns:
        A temperature between 0.05 and 20; above 1 means that the network was overconfident.

    >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])  # 98 % sure
    >>> temperature = fit_temperature(logits, np.array([0, 0, 0, 1]))  # right in 75 %
    >>> round(float(1 / (1 + np.exp(-4 / temperature))), 2)
    0.75
    """
    logits = logits.astype(np.float64)
    found = minimize_scalar(
        lambda log_t: cross_entropy(logits / np.exp(log_t), labels),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return round(float(np.exp(found.x)), 6)
