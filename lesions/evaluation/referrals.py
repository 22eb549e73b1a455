"""Referrals: which photos a threshold would refer to a doctor, and whether that is worth it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lesions.evaluation.predictions import Predictions
from lesions.scoring.intervals import effective_count, wilson_interval
from lesions.scoring.operating_points import OperatingPoint, score

# Of the decision curve: the probability of the group from which one would refer a patient.
RISKS = np.arange(1, 61) / 100

COLUMNS = (
    *("group", "aim", "expected_low", "expected_high", "threshold", "sensitivity", "low", "high"),
    *("specificity", "specificity_low", "specificity_high"),
    *("found", "cases", "false_alarms", "others", "referred_per_found"),
)


def operating_point_table(
    predictions: Predictions, points: Sequence[OperatingPoint]
) -> pd.DataFrame:
    """Score thresholds that were chosen on validation; no threshold depends on these photos.

    Returns:
        One row per operating point: group, aim (its sensitivity on validation), expected_low and
        expected_high (95 % interval of the sensitivity to be expected), threshold; sensitivity and
        specificity here with Wilson's intervals (low, high, specificity_low, specificity_high);
        found, cases, false_alarms, others (photos), and referred_per_found. Sensitivity is NaN if
        no photo is of the group.
    """
    rows = []
    for point in points:
        members = predictions.dataset.indices(point.group)
        cases = np.isin(predictions.labels, members)
        referred = score(predictions.probabilities, members) >= point.threshold
        lesions = predictions.groups
        found, false_alarms = int((cases & referred).sum()), int((~cases & referred).sum())
        sensitivity = found / cases.sum() if cases.any() else np.nan
        specificity = 1 - false_alarms / (~cases).sum() if not cases.all() else np.nan
        low, high = wilson_interval(sensitivity, effective_count(lesions[cases]))
        specificity_low, specificity_high = wilson_interval(
            specificity, effective_count(lesions[~cases])
        )
        rows.append(
            {
                "group": point.group,
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


def net_benefit_table(predictions: Predictions) -> pd.DataFrame:
    """Compute the decision curve of each group (Vickers and Elkin 2006).

    doi 10.1177/0272989X06295361. Net benefit is the share of photos that are rightly referred,
    minus that of the wrongly referred times the odds of the risk: whoever refers from a risk of
    10 % on accepts nine false alarms for each case found. A model is of use at a risk if it beats
    referring all and referring none.

    Returns:
        One row per group, risk and strategy (`model`, `refer all`, `refer none`): group, risk,
        strategy, net_benefit. Empty without groups.
    """
    rows: list[tuple[str, float, str, float]] = []
    for group in predictions.dataset.groups:
        members = predictions.dataset.indices(group)
        cases = np.isin(predictions.labels, members)
        scores = score(predictions.probabilities, members)
        for risk in RISKS:
            odds = risk / (1 - risk)
            for strategy, referred in {
                "model": scores >= risk,
                "refer all": np.ones(len(cases), dtype=bool),
                "refer none": np.zeros(len(cases), dtype=bool),
            }.items():
                benefit = (cases & referred).mean() - odds * (~cases & referred).mean()
                rows.append((group, float(risk), strategy, float(benefit)))
    return pd.DataFrame(rows, columns=["group", "risk", "strategy", "net_benefit"])
