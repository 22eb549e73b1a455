import numpy as np
import pytest
from helpers import predictions_of, random_predictions
from sklearn import metrics

from lesions.evaluation.thresholds import threshold_table


def test_the_table_keeps_what_the_curve_needs() -> None:
    predictions = random_predictions(400)
    points = threshold_table(predictions)
    for index, (_, own) in enumerate(points.groupby("dx", sort=False)):
        truth, scores = predictions.labels == index, predictions.probabilities[:, index]
        assert own[["sensitivity", "false_positive_rate"]].iloc[0].tolist() == [0, 0]
        assert own[["sensitivity", "false_positive_rate"]].iloc[-1].tolist() == [1, 1]
        area = np.trapezoid(own["sensitivity"], own["false_positive_rate"])
        assert area == pytest.approx(metrics.roc_auc_score(truth, scores))
        assert len(own) < truth.sum() * 3 + 3
        precision, sensitivity, _ = metrics.precision_recall_curve(truth, scores)
        for at in (0.2, 0.5, 0.8):
            drawn = own["precision"][own["sensitivity"] <= at].iloc[-1]
            exact = precision[sensitivity <= at][0]
            assert drawn == pytest.approx(exact, abs=0.02)
    none = predictions_of(np.eye(7)[[5, 5]], np.array([5, 5]))
    assert threshold_table(none).empty
