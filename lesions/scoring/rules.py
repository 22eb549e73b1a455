"""Rules: which class to predict, given calibrated probabilities."""

from typing import get_args

import numpy as np

from lesions.common.params import Decision
from lesions.common.types import Floats, Labels

DECISIONS: tuple[Decision, ...] = get_args(Decision)


def decide(probabilities: Floats, decision: Decision, prevalence: Floats) -> Labels:
    """Predict a class for each photo.

    `most-probable` is right most often. `balanced` takes the largest ratio of probability to
    prevalence: Bayes' rule for balanced accuracy, if the probabilities are right (Menon et al.
    2021, Long-tail learning via logit adjustment, arXiv 2007.07314). Nothing is tuned.

    Args:
        probabilities: (n, classes), rows sum to 1.
        decision: the rule.
        prevalence: (classes,) the share of each class where the probabilities are calibrated.

    Returns:
        (n,) class indices. A class with a prevalence of 0 is not predicted by `balanced`.

    >>> probabilities = np.array([[0.3, 0.7]])
    >>> prevalence = np.array([0.1, 0.9])
    >>> decide(probabilities, "most-probable", prevalence).tolist()
    [1]
    >>> decide(probabilities, "balanced", prevalence).tolist()
    [0]
    """
    if decision == "most-probable":
        return np.asarray(probabilities.argmax(axis=1))
    ratios = np.divide(
        probabilities, prevalence, out=np.zeros_like(probabilities), where=prevalence > 0
    )
    return np.asarray(ratios.argmax(axis=1))
