"""Selective prediction: how accurate a model is on the photos that it is surest of."""

import numpy as np
import pandas as pd

from lesions.evaluation.predictions import Predictions

COVERAGES = np.arange(2, 21) / 20  # from the surest tenth to all


def selective_table(predictions: Predictions) -> pd.DataFrame:
    """Compare coverage with accuracy (El-Yaniv and Wiener 2010, jmlr.org/papers/v11/el-yaniv10a).

    Returns:
        One row per coverage and criterion: by (`confidence`: the most confident photos are kept;
        `distance`: those nearest to the training photos), coverage, accuracy, photos.
    """
    correct = predictions.predicted == predictions.labels
    doubts = {"confidence": -predictions.probabilities.max(axis=1)}
    if predictions.distances is not None:
        doubts["distance"] = predictions.distances
    rows = []
    for by, doubt in doubts.items():
        surest_first = correct[np.argsort(doubt, kind="stable")]
        for coverage in COVERAGES:
            kept = max(1, round(coverage * len(correct)))
            rows.append((by, float(coverage), float(surest_first[:kept].mean()), kept))
    return pd.DataFrame(rows, columns=["by", "coverage", "accuracy", "photos"])
