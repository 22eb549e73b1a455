"""Calibration: makes probabilities agree with how often they are right.

Bias-corrected temperature scaling (Alexandari, Kundaje and Shrikumar 2020, arXiv 1901.06852): the
logits are divided by a temperature (Guo et al. 2017, arXiv 1706.04599), and each class has a bias.
A network that was trained on balanced photos expects rare classes too often; the biases correct
that, which a temperature cannot.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from lesions.common.types import Floats, Labels

# Of the normal distribution that biases are assumed to come from, around what is known beforehand:
# with few photos of a class to learn from, its bias stays near that.
PRIOR_SPREAD = 1.0
LARGEST_LOG_TEMPERATURE = np.log(20)
LARGEST_BIAS = 10.0


class Calibration(NamedTuple):
    """What turns logits into probabilities."""

    temperature: float
    bias: tuple[float, ...]  # of each class

    def probabilities(self, logits: Floats) -> npt.NDArray[np.float64]:
        """Turn (n, classes) logits into probabilities of the same shape; rows sum to 1."""
        result: npt.NDArray[np.float64] = softmax(
            logits.astype(np.float64) / self.temperature + np.array(self.bias), axis=1
        )
        return result


def cross_entropy(logits: Floats, labels: Labels, weights: Floats | None = None) -> float:
    """Compute the mean cross-entropy of (n, classes) logits and (n,) class indices.

    Args:
        logits, labels: of n photos.
        weights: (n,) how much each photo counts; by default all the same.
    """
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return float(-np.average(log_probabilities[np.arange(len(labels)), labels], weights=weights))


def known_shift(trained: Floats, counts: Floats) -> npt.NDArray[np.float64]:
    """Compute the biases that are known beforehand, from how rare each class really is.

    A network that is trained on other shares of the classes has logits that are off by the
    logarithm of their ratio (Saerens, Latinne and Decaestecker 2002, doi
    10.1162/089976602753284446). Half a case is added to each class, so that 0 cases are finite.

    Args:
        trained: (classes,) how often training used each class.
        counts: (classes,) cases in validation.

    >>> known_shift(np.array([100, 100]), np.array([9.5, 89.5])).round(2).tolist()
    [-1.61, 0.59]
    """
    shares = [(values + 0.5) / (values + 0.5).sum() for values in (trained, counts)]
    return np.asarray(np.log(shares[1] / shares[0]))


def fit_calibration(
    logits: Floats, labels: Labels, weights: Floats, expected: Floats
) -> Calibration:
    """Find the temperature and the biases with the least cross-entropy on validation photos.

    Args:
        logits: (n, classes).
        labels: (n,) class indices.
        weights: (n,) how much each photo counts.
        expected: (classes,) the biases that are expected, from `known_shift`.

    Returns:
        A temperature between 0.05 and 20; above 1 means that the network was overconfident. The
        penalty on the biases is that of a normal prior: the fewer photos, the nearer to `expected`.

    >>> logits = np.array([[4.0, 0.0]] * 100)  # 98 % sure
    >>> labels = np.repeat([0, 1], [75, 25])  # right in 75 %
    >>> calibration = fit_calibration(logits, labels, np.ones(100), np.zeros(2))
    >>> calibration.probabilities(logits)[0].round(2).tolist()
    [0.75, 0.25]
    """
    logits = logits.astype(np.float64)
    truth = np.eye(logits.shape[1])[labels]
    share = weights / weights.sum()
    penalty = 1 / (PRIOR_SPREAD**2 * weights.sum())

    def loss_and_gradient(x: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scaled, bias = logits * np.exp(-x[0]), x[1:]
        loss = (
            cross_entropy(scaled + bias, labels, weights)
            + penalty * ((bias - expected) @ (bias - expected)) / 2
        )
        error = (softmax(scaled + bias, axis=1) - truth) * share[:, None]
        by_bias = error.sum(axis=0) + penalty * (bias - expected)
        return loss, np.concatenate([[-(error * scaled).sum()], by_bias])

    limits = [(-LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE)]
    limits += [(-LARGEST_BIAS, LARGEST_BIAS)] * logits.shape[1]
    found = minimize(loss_and_gradient, np.append(0, expected), jac=True, bounds=limits)
    bias = found.x[1:].round(6)
    return Calibration(round(float(np.exp(found.x[0])), 6), tuple(map(float, bias)))
