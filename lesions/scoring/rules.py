"""Rules: which class to predict, given calibrated probabilities."""

from typing import Literal, get_args

import numpy as np

from lesions.common.types import Floats, Labels
from lesions.scoring.metrics import confusion_matrices, mean_of_known, sensitivities

Decision = Literal["most-probable", "balanced"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
EXPONENTS = np.linspace(0, 1, 11)
TOLERANCE = 0.01  # of balanced accuracy: less than one lesion in ten of the rarest classes


def decide(
    probabilities: Floats, decision: Decision, prevalence: Floats, exponent: float
) -> Labels:
    """Predict a class for each photo.

    `most-probable` is right most often. `balanced` takes the largest ratio of probability to
    prevalence: with the exponent 1 that is Bayes' rule for balanced accuracy, if the probabilities
    are right (Menon et al. 2021, Long-tail learning via logit adjustment, arXiv 2007.07314). A
    smaller exponent trusts the probabilities of rare classes less; with 0 both rules agree.

    Args:
        probabilities: (n, classes), rows sum to 1.
        decision: the rule.
        prevalence: (classes,) the share of each class where the probabilities are calibrated.
        exponent: of the prevalence, from `fit_exponent`.

    Returns:
        (n,) class indices.

    >>> probabilities = np.array([[0.3, 0.7]])
    >>> prevalence = np.array([0.1, 0.9])
    >>> decide(probabilities, "most-probable", prevalence, 1.0).tolist()
    [1]
    >>> decide(probabilities, "balanced", prevalence, 1.0).tolist()
    [0]
    """
    if decision == "most-probable":
        return np.asarray(probabilities.argmax(axis=1))
    # A class without a known prevalence cannot be predicted.
    known = prevalence > 0
    ratios = np.where(known, probabilities / np.where(known, prevalence, 1) ** exponent, 0)
    return np.asarray(ratios.argmax(axis=1))


def fit_exponent(
    probabilities: Floats, labels: Labels, prevalence: Floats, weights: Floats
) -> float:
    """Find the smallest exponent with nearly the highest balanced accuracy on validation photos.

    Args:
        probabilities, labels: of n photos.
        prevalence: (classes,) as for `decide`.
        weights: (n,) how much each photo counts.

    Returns:
        One of EXPONENTS: the smallest within TOLERANCE of the best. A larger one makes more false
        alarms of rare classes for a gain that validation cannot tell from luck.
    """
    scores = []
    for exponent in EXPONENTS:
        predicted = decide(probabilities, "balanced", prevalence, exponent)
        confusion = confusion_matrices(predicted, labels, weights[None], probabilities.shape[1])
        scores.append(mean_of_known(sensitivities(confusion))[0])
    good = np.flatnonzero(np.array(scores) >= max(scores) - TOLERANCE)
    return round(float(EXPONENTS[good[0]]), 6)
