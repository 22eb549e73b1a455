from dataclasses import replace

import numpy as np
import pytest
from helpers import predictions_of

from lesions.evaluation.selective import COVERAGES, selective_table


def test_the_surest_photos_come_first() -> None:
    # Right where the confidence is high; the distances say the opposite.
    confidence = np.linspace(0.4, 0.99, 100)
    labels = np.where(np.arange(100) < 20, 5, 4)  # the 20 least confident are wrong
    probabilities = np.zeros((100, 7))
    probabilities[:, 4], probabilities[:, 5] = confidence, 0
    probabilities[:, 0] = 1 - confidence
    probabilities[confidence < 0.5, 0] = 0.3
    predictions = replace(predictions_of(probabilities, labels), distances=confidence)
    table = selective_table(predictions).set_index(["by", "coverage"])["accuracy"]
    assert table["confidence", 0.8] == 1
    assert table["confidence", 1.0] == table["distance", 1.0] == pytest.approx(0.8)
    assert table["distance", 0.2] == 0
    assert len(table) == 2 * len(COVERAGES)


def test_without_distances_only_confidence_is_shown() -> None:
    predictions = predictions_of(np.eye(7)[[4, 5]], np.array([4, 5]))
    assert set(selective_table(predictions)["by"]) == {"confidence"}
