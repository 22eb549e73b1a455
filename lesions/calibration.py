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
