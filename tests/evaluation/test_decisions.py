import numpy as np
import pytest
from helpers import card_of, predictions_of

from lesions.evaluation.decisions import decision_table
from lesions.networks.decision import DECISIONS


def test_both_decisions_are_scored_from_the_same_probabilities() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([4] * 40 + [5] * 360)
    melanoma = np.clip(np.where(labels == 4, 0.4, 0.05) + rng.normal(0, 0.1, 400), 0, 1)
    probabilities = np.zeros((400, 7))
    probabilities[:, 4], probabilities[:, 5] = melanoma, 1 - melanoma
    card = card_of(prevalence=(0, 0, 0, 0, 0.1, 0.9, 0), prevalence_exponent=1.0)
    table = decision_table(predictions_of(probabilities, labels), card)
    values = {(row["decision"], row["metric"]): row for row in table.to_dict("records")}
    for decision, threshold in (("most-probable", 0.5), ("balanced", 0.1)):
        found = melanoma >= threshold
        row = values[decision, "melanoma_sensitivity"]
        assert row["value"] == pytest.approx(found[:40].mean())
        assert row["low"] < row["value"] <= row["high"]
        accuracy = values[decision, "accuracy"]
        assert accuracy["value"] == pytest.approx((found == (labels == 4)).mean())
        assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    balanced = [values[decision, "balanced_accuracy"]["value"] for decision in DECISIONS]
    assert balanced[1] > balanced[0]
