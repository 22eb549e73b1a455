"""Referrals: which photos a threshold would refer to a doctor, and whether that is worth it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lesions.evaluation.predictions import Predictions
from lesions.scoring.fitted import Fitted
from lesions.scoring.guards import enough_cases, enough_groups
from lesions.scoring.intervals import bootstrap_weights, effective_count, wilson_interval
from lesions.scoring.operating_points import OperatingPoint, score

# On validation, of the thresholds that pages show first and by which models are compared.
SENSITIVITY = 0.90
# Of the decision curve: the probability of the group from which one would refer a patient.
RISKS = np.arange(1, 61) / 100

COLUMNS = (
    *(
        "group",
        "aim",
        "assured",
        "expected_low",
        "expected_high",
        "threshold",
        "sensitivity",
        "low",
        "high",
    ),
    *("specificity", "specificity_low", "specificity_high"),
    *("found", "cases", "false_alarms", "others", "referred_per_found"),
)


def shown_points(fitted: Fitted) -> dict[str, OperatingPoint]:
    """Take the threshold for SENSITIVITY of each group that has one."""
    return {
        point.group: point
        for point in fitted.operating_points
        if point.sensitivity == SENSITIVITY and not point.assured
    }


def is_shown(row: Mapping[Any, Any]) -> bool:
    """Say whether a row of operating_points.csv is about one of `shown_points`."""
    return bool(row["aim"] == SENSITIVITY and not row["assured"])


def operating_point_table(
    predictions: Predictions, points: Sequence[OperatingPoint]
) -> pd.DataFrame:
    """Score thresholds that were chosen on validation; no threshold depends on these photos.

    Returns:
        One row per operating point: group, aim (its sensitivity on validation), assured,
        expected_low and expected_high (95 % interval of the sensitivity to be expected), threshold;
        sensitivity and
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
                "assured": point.assured,
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
        strategy, net_benefit, low and high (95 % interval of the model's, NaN where `guards` finds
        too few lesions). Empty without groups.
    """
    groups, labels = predictions.groups, predictions.labels
    odds = RISKS / (1 - RISKS)
    parts = []
    for group in predictions.dataset.groups:
        members = predictions.dataset.indices(group)
        cases = np.isin(labels, members)
        referred = score(predictions.probabilities, members)[:, None] >= RISKS
        # What each photo adds at each risk, (n, risks), for each strategy.
        gains = {
            "model": cases[:, None] * referred - odds * (~cases[:, None] * referred),
            "refer all": cases[:, None] - odds * ~cases[:, None],
            "refer none": np.zeros((len(cases), len(RISKS))),
        }
        table = pd.DataFrame(
            {
                "group": group,
                "risk": np.tile(RISKS, len(gains)),
                "strategy": np.repeat(list(gains), len(RISKS)),
                "net_benefit": np.concatenate([gain.mean(axis=0) for gain in gains.values()]),
                "low": np.nan,
                "high": np.nan,
            }
        )
        if enough_groups(groups) and enough_cases(groups, cases, ~cases):
            samples = bootstrap_weights(groups.to_numpy(dtype=str))
            resamples = np.concatenate(
                [w @ gains["model"] / w.sum(axis=1, keepdims=True) for w in samples]
            )
            ends = np.quantile(resamples, [0.025, 0.975], axis=0)
            table.loc[table["strategy"] == "model", ["low", "high"]] = ends.T
        parts.append(table)
    columns = ["group", "risk", "strategy", "net_benefit", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
