"""The ensemble: the mean of the probabilities of all networks of a run, as one more model."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lesions.common.params import ENSEMBLE_TITLE, Decision, Views
from lesions.common.types import Floats
from lesions.evaluation.predictions import Predictions
from lesions.scoring.fitted import Fitted, fit

NAME = "ensemble"
TITLE = ENSEMBLE_TITLE


def average(
    validation: Mapping[str, Predictions],
    test: Mapping[str, Predictions],
    decision: Decision,
    views: Views,
) -> tuple[Predictions, Fitted]:
    """Average the calibrated probabilities of several networks, and calibrate the mean.

    A mean of calibrated probabilities is not confident enough (Rahaman and Thiery 2021, arXiv
    2007.08792), so it gets a calibration and thresholds of its own, fitted on validation.

    Args:
        validation, test: of each network, its predictions of the same photos.
        decision: which class to predict, given the probabilities.
        views: that all were averaged over.

    Returns:
        The predictions of the test photos, and what was fitted.
    """
    one = next(iter(validation.values()))
    balance = np.bincount(one.labels, minlength=len(one.dataset.classes)).astype(np.float64)
    logits, unused = _log_mean(validation), np.zeros(len(one.labels))
    fitted = fit(logits, unused, one.labels, one.groups, one.dataset, balance, views)
    logits = _log_mean(test)
    probabilities = fitted.calibration.probabilities(logits)
    averaged = replace(
        next(iter(test.values())),
        probabilities=probabilities,
        uncalibrated=np.exp(logits),
        predicted=fitted.decide(probabilities, decision),
        distances=None,
    )
    return averaged, fitted


def _log_mean(models: Mapping[str, Predictions]) -> Floats:
    """Average the probabilities, (n, classes), and take the logarithm."""
    mean = np.mean([one.probabilities for one in models.values()], axis=0)
    return np.asarray(np.log(np.maximum(mean, np.finfo(np.float64).tiny)))
