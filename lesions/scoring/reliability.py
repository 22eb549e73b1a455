"""Reliability: do predictions with confidence p turn out right in a share p of cases?"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from lesions.common.types import Bools, Floats, Labels

BINS = 15  # of equal width, as in Guo et al. 2017
STEPS = 25  # of Newton's method, at most
PRECISION = 1e-6  # of its last step
LARGEST_SLOPE = 20  # a larger one means that cases and others are perfectly separated


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


def group_calibration(scores: Floats, cases: Bools, weights: Floats) -> dict[str, Floats]:
    """Measure whether a group's probabilities, which thresholds use, are right.

    Slope and intercept of a logistic regression of the cases on the log odds of the scores (Cox
    1958; Van Calster et al. 2019, doi 10.1186/s12916-019-1466-7), and the cases that the scores
    expect over those observed. Right probabilities give 1, 0 and 1. A slope below 1: high ones are
    too high and low ones too low. An intercept below 0 (for a slope of 1) or a ratio above 1: they
    are too high on the whole.

    Args:
        scores: (n,) probability of the group.
        cases: (n,) which photos are of it.
        weights: (b, n), how often each photo counts in each of b samples.

    Returns:
        A dict of slope, intercept and expected_over_observed, each (b,); NaN where a sample has no
        cases or only cases, or where they are perfectly separated.

    >>> rng = np.random.default_rng(0)
    >>> scores = rng.uniform(size=20_000)
    >>> found = group_calibration(scores, rng.uniform(size=20_000) < scores, np.ones((1, 20_000)))
    >>> {name: round(value[0].item(), 1) for name, value in found.items()}
    {'slope': 1.0, 'intercept': 0.0, 'expected_over_observed': 1.0}
    """
    odds = logit(np.clip(scores, 1e-6, 1 - 1e-6))
    observed, total = weights @ cases, weights.sum(axis=1)
    mixed = (observed > 0) & (observed < total)
    _, slope = _regress(odds, cases, weights, free=True)
    intercept, _ = _regress(odds, cases, weights, free=False)
    values = {"slope": slope, "intercept": intercept}
    values["expected_over_observed"] = (weights @ scores) / np.where(mixed, observed, 1)
    return {name: np.where(mixed, value, np.nan) for name, value in values.items()}


def _regress(odds: Floats, cases: Bools, weights: Floats, free: bool) -> tuple[Floats, Floats]:
    """Fit intercept and slope, (b,) each, by Newton's method; the slope stays 1 unless `free`."""
    intercept, slope = np.zeros(len(weights)), np.ones(len(weights))
    for _ in range(STEPS):
        fitted = expit(intercept[:, None] + slope[:, None] * odds)
        error, curvature = weights * (cases - fitted), weights * fitted * (1 - fitted)
        gradient, level = error.sum(axis=1), curvature.sum(axis=1) + 1e-9
        if free:
            by_slope, cross, square = error @ odds, curvature @ odds, curvature @ odds**2 + 1e-9
            determinant = level * square - cross**2
            rise = np.clip((square * gradient - cross * by_slope) / determinant, -2, 2)
            turn = np.clip((level * by_slope - cross * gradient) / determinant, -1, 1)
        else:
            rise, turn = np.clip(gradient / level, -2, 2), np.zeros(len(weights))
        intercept, slope = intercept + rise, slope + turn
        if max(np.abs(rise).max(), np.abs(turn).max()) < PRECISION:
            break
    separated = ~np.isfinite(slope) | (np.abs(slope) > LARGEST_SLOPE)
    return intercept, np.where(separated, np.nan, slope)
