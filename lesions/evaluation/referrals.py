"""Referrals: which photos a threshold would refer to a doctor, and whether that is worth it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lesions.evaluation.intervals import effective_count, wilson_interval
from lesions.evaluation.predictions import Predictions
from lesions.networks.operating_points import OperatingPoint, Target, score, target_indices

# Of the decision curve: the probability of a malignant lesion from which one would refer a patient.
RISKS = np.arange(1, 61) / 100

COLUMNS = (
    *("target", "aim", "expected_low", "expected_high", "threshold", "sensitivity", "low", "high"),
    *("specificity", "specificity_low", "specificity_high"),
    *("found", "cases", "false_alarms", "others", "referred_per_found"),
)


def operating_point_table(
    predictions: Predictions, points: Sequence[OperatingPoint]
) -> pd.DataFrame:
    """Score thresholds that were chosen on validation; no threshold depends on these photos.

    Returns:
        One row per operating point: target, aim (its sensitivity on validation), expected_low and
        expected_high (95 % interval of the sensitivity to be expected), threshold; sensitivity and
        specificity here with Wilson's intervals (low, high, specificity_low, specificity_high);
        found, cases, false_alarms, others (photos), and referred_per_found. Sensitivity is NaN if
        no photo is of the target.
    """
    rows = []
    for point in points:
        cases = np.isin(predictions.labels, target_indices(point.target))
        referred = score(predictions.probabilities, point.target) >= point.threshold
        lesions = predictions.photos["lesion_id"]
        found, false_alarms = int((cases & referred).sum()), int((~cases & referred).sum())
        sensitivity = found / cases.sum() if cases.any() else np.nan
        specificity = 1 - false_alarms / (~cases).sum() if not cases.all() else np.nan
        low, high = wilson_interval(sensitivity, effective_count(lesions[cases]))
        specificity_low, specificity_high = wilson_interval(
            specificity, effective_count(lesions[~cases])
        )
        rows.append(
            {
                "target": point.target,
                "aim": point.sensitivity,
                "expected_low": point.low,
                "expected_high": point.high,
                "threshold": point.threshold,
                "sensitivity": sensitivity,
                "low": low,
                "high": high,
                "specificity": specificity,
                "specificity_low": specificity_low,
                "specificity_high": specificity_high,
                "found": found,
                "cases": int(cases.sum()),
                "false_alarms": false_alarms,
                "others": int((~cases).sum()),
                "referred_per_found": (found + false_alarms) / found if found else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def net_benefit_table(predictions: Predictions, target: Target = "malignant") -> pd.DataFrame:
    """Compute the decision curve (Vickers and Elkin 2006, doi 10.1177/0272989X06295361).

    Net benefit is the share of photos that are rightly referred, minus that of the wrongly referred
    times the odds of the risk: whoever refers from a risk of 10 % on accepts nine false alarms for
    each lesion found. A model is of use at a risk if it beats referring all and referring none.

    Returns:
        One row per risk and strategy (`model`, `refer all`, `refer none`): risk, strategy,
        net_benefit.
    """
    cases = np.isin(predictions.labels, target_indices(target))
    scores = score(predictions.probabilities, target)
    rows = []
    for risk in RISKS:
        odds = risk / (1 - risk)
        for strategy, referred in {
            "model": scores >= risk,
            "refer all": np.ones(len(cases), dtype=bool),
            "refer none": np.zeros(len(cases), dtype=bool),
        }.items():
            benefit = (cases & referred).mean() - odds * (~cases & referred).mean()
            rows.append((float(risk), strategy, float(benefit)))
    return pd.DataFrame(rows, columns=["risk", "strategy", "net_benefit"])
