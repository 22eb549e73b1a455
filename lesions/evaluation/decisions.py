"""The table of decisions.csv: what each rule for the predicted diagnosis is worth."""

import numpy as np
import pandas as pd

from lesions.evaluation.intervals import (
    bootstrap_weights,
    effective_count,
    percentile_interval,
    wilson_interval,
)
from lesions.evaluation.predictions import Predictions
from lesions.networks.decision import DECISIONS
from lesions.networks.key_metrics import MELANOMA, confusion_matrices, of_confusion
from lesions.networks.model_card import ModelCard


def decision_table(predictions: Predictions, card: ModelCard) -> pd.DataFrame:
    """Score the same probabilities under each decision.

    Returns:
        One row per decision and metric: decision, metric, value, low and high (95 %; bootstrap over
        lesions, for melanoma sensitivity Wilson's interval).
    """
    labels = predictions.labels
    lesions = predictions.photos["lesion_id"]
    once = np.ones((1, len(labels)))
    rows = []
    for decision in DECISIONS:
        predicted = card.decide(predictions.probabilities, decision)
        blocks = [
            of_confusion(confusion_matrices(predicted, labels, weights))
            for weights in bootstrap_weights(lesions.to_numpy(dtype=str))
        ]
        for name, (value,) in of_confusion(confusion_matrices(predicted, labels, once)).items():
            low, high = percentile_interval(np.concatenate([block[name] for block in blocks]))
            if name == "melanoma_sensitivity":
                melanomas = effective_count(lesions[labels == MELANOMA])
                low, high = wilson_interval(float(value), melanomas)
            rows.append((decision, name, float(value), low, high))
    return pd.DataFrame(rows, columns=["decision", "metric", "value", "low", "high"])
