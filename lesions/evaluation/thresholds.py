"""The table of thresholds.csv: ROC and precision-recall curves of each class."""

import numpy as np
import pandas as pd

from lesions.common.types import Bools
from lesions.evaluation.predictions import Predictions
from lesions.scoring.curves import Curve, curve

COLUMNS = ("dx", "threshold", "sensitivity", "false_positive_rate", "precision")
STEPS = 200  # points of a precision-recall curve: one for each half a percent of sensitivity


def threshold_table(predictions: Predictions) -> pd.DataFrame:
    """Compute the curves of each class against all others.

    Returns:
        Columns as COLUMNS, thresholds from high to low. The first row of a class has no
        threshold: nothing is above it, and its precision is that of the next row. Points that the
        curves do not need are left out, and so is a class without photos, or with all of them.
    """
    parts, labels = [], predictions.labels
    for index, code in enumerate(predictions.dataset.classes):
        cases, scores = labels == index, predictions.probabilities[:, index]
        if cases.all() or not cases.any():
            continue
        one = curve(scores, cases, np.ones((1, len(labels))))
        points = pd.DataFrame(
            {
                "threshold": np.unique(scores)[::-1],
                "sensitivity": one.sensitivity[0],
                "false_positive_rate": one.false_positive_rate[0],
                "precision": one.precision[0],
            }
        )
        start = points[:1].assign(threshold=np.nan, sensitivity=0.0, false_positive_rate=0.0)
        parts.append(pd.concat([start, points[_needed(one)]]).assign(dx=code))
    return pd.concat(parts)[list(COLUMNS)] if parts else pd.DataFrame(columns=list(COLUMNS))


def _needed(one: Curve) -> Bools:
    """Choose the points that draw both curves: (t,) bool.

    A point within a straight piece of the ROC curve is not needed for that curve. The
    precision-recall curve bends there, so one point per step of sensitivity stays.
    """
    positives, negatives = one.true_positives[0], one.false_positives[0]
    rises = np.diff(np.stack([positives, negatives]), axis=1).astype(bool)
    turns = (rises[:, 1:] != rises[:, :-1]).any(axis=0)
    diagonal = (rises[0] & rises[1])[1:]
    needed = np.ones(len(positives), dtype=bool)
    needed[1:-1] = turns | diagonal
    needed[1:] |= np.diff(np.floor(STEPS * one.sensitivity[0])) > 0
    return needed
