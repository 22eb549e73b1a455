"""Metrics: how good a model's predictions for the test photos are, and for whom."""

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from lesions.dataset.diagnoses import CODES, MALIGNANT
from lesions.evaluation.decisions import decision_table
from lesions.evaluation.intervals import (
    RESAMPLES,
    bootstrap_weights,
    effective_count,
    percentile_interval,
    wilson_interval,
)
from lesions.evaluation.predictions import Predictions, majority_baseline
from lesions.evaluation.referrals import net_benefit_table, operating_point_table
from lesions.evaluation.reliability import brier_score, calibration_error, reliability_table
from lesions.evaluation.selective import selective_table
from lesions.evaluation.thresholds import threshold_table
from lesions.networks.curves import Floats, curve, ratio
from lesions.networks.key_metrics import MELANOMA, confusion_matrices, key_metrics
from lesions.networks.model_card import ModelCard

TABLES = (
    *("metrics", "per_class", "confusion", "decisions", "operating_points", "net_benefit"),
    *("selective", "subgroups", "thresholds", "reliability"),
)
MIN_CASES = 10  # fewest photos of a subgroup, or melanomas, for which metrics are shown
MIN_LESIONS = 30  # fewest of a test set for which bootstrap intervals are shown

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "weighted_f1": "weighted F1",
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
    "melanoma_sensitivity": "melanoma sensitivity",
    "malignant_auc": "ROC AUC, malignant or benign",
    "calibration_error": "calibration error",
    "brier_score": "Brier score",
    "calibration_error_before": "calibration error before calibration",
    "brier_score_before": "Brier score before calibration",
}
LESS_IS_BETTER = {name for name in TITLES if name.startswith(("calibration", "brier"))}


def all_metrics(predictions: Predictions, weights: Floats) -> dict[str, Floats]:
    """Compute every metric, each photo counted as often as its weight says.

    Args:
        predictions: for n photos.
        weights: (b, n), one row per sample.

    Returns:
        A dict from metric to its (b,) values, keys and order as TITLES; NaN where a diagnosis that
        it needs does not occur.
    """
    labels, calibrated = predictions.labels, predictions.probabilities
    malignant = [CODES.index(code) for code in MALIGNANT]
    malignant_share = calibrated[:, malignant].sum(axis=1)
    before = predictions.uncalibrated
    return {
        **key_metrics(calibrated, predictions.predicted, labels, weights),
        "malignant_auc": curve(malignant_share, np.isin(labels, malignant), weights).area(),
        "calibration_error": calibration_error(calibrated, labels, weights),
        "brier_score": brier_score(calibrated, labels, weights),
        "calibration_error_before": calibration_error(before, labels, weights),
        "brier_score_before": brier_score(before, labels, weights),
    }


def point_estimates(predictions: Predictions) -> dict[str, float]:
    """Compute every metric on the test set as it is."""
    values = all_metrics(predictions, np.ones((1, len(predictions.labels))))
    return {name: float(value[0]) for name, value in values.items()}


def bootstrap(predictions: Predictions) -> dict[str, Floats]:
    """Compute every metric on resamples of the lesions, the same ones for every model.

    Returns:
        A dict from metric to its (RESAMPLES,) values. They are NaN where there are too few lesions:
        resamples of so few hardly differ, so their interval is too narrow. That is fewer than
        MIN_LESIONS in all, and for melanoma sensitivity and the malignant AUC fewer than MIN_CASES
        melanomas, or malignant or benign lesions.
    """
    lesions = predictions.photos["lesion_id"].to_numpy(dtype=str)
    blocks = [all_metrics(predictions, weights) for weights in bootstrap_weights(lesions)]
    values = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    malignant = np.isin(predictions.labels, [CODES.index(code) for code in MALIGNANT])
    cases = {
        "melanoma_sensitivity": len(np.unique(lesions[predictions.labels == MELANOMA])),
        "malignant_auc": min(len(np.unique(lesions[one])) for one in (malignant, ~malignant)),
    }
    for name in values:
        if len(np.unique(lesions)) < MIN_LESIONS or cases.get(name, MIN_CASES) < MIN_CASES:
            values[name] = np.full(RESAMPLES, np.nan)
    return values


def metric_table(predictions: Predictions, resamples: dict[str, Floats]) -> pd.DataFrame:
    """Make the table of metrics.csv: every metric with its 95 % interval and its baseline.

    Args:
        predictions: of one model.
        resamples: from `bootstrap`.

    Returns:
        Columns metric, value, low, high, baseline (of always predicting the most common
        diagnosis). Melanoma sensitivity has Wilson's interval, as in `per_class_table`.
        Calibration error has no interval, because its resamples are biased upwards, and neither has
        a metric whose resamples are all the same. Metrics of calibration have no baseline.
    """
    baseline = point_estimates(majority_baseline(predictions))
    melanomas = effective_count(predictions.photos["lesion_id"][predictions.labels == MELANOMA])
    rows = []
    for name, value in point_estimates(predictions).items():
        low, high = percentile_interval(resamples[name])
        if name == "melanoma_sensitivity":
            low, high = wilson_interval(value, melanomas)
        elif name.startswith("calibration_error") or high - low < 1e-9:
            low = high = np.nan
        reference = np.nan if name in LESS_IS_BETTER else baseline[name]
        rows.append((name, value, low, high, reference))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "baseline"])


def per_class_table(predictions: Predictions) -> pd.DataFrame:
    """Evaluate each diagnosis against all others.

    Returns:
        One row per diagnosis, in class order: dx, photos, lesions, sensitivity with low and high
        (Wilson's interval for `effective_count` cases), specificity, precision, f1,
        roc_auc, average_precision. Undefined values are NaN: precision if the diagnosis is never
        predicted, and all but the counts if no photo has it.
    """
    rows = []
    for index, code in enumerate(CODES):
        cases, predicted = predictions.labels == index, predictions.predicted == index
        scores = predictions.probabilities[:, index]
        has_both = cases.any() and not cases.all()
        found = (cases & predicted).sum()
        lesions = predictions.photos["lesion_id"][cases]
        sensitivity = float(found / cases.sum()) if cases.any() else np.nan
        low, high = wilson_interval(sensitivity, effective_count(lesions))
        rows.append(
            {
                "dx": code,
                "photos": int(cases.sum()),
                "lesions": lesions.nunique(),
                "sensitivity": sensitivity,
                "low": low,
                "high": high,
                "specificity": (~cases & ~predicted).sum() / (~cases).sum() if has_both else np.nan,
                "precision": found / predicted.sum() if predicted.any() else np.nan,
                "f1": 2 * found / (cases.sum() + predicted.sum()) if cases.any() else np.nan,
                "roc_auc": sklearn_metrics.roc_auc_score(cases, scores) if has_both else np.nan,
                "average_precision": sklearn_metrics.average_precision_score(cases, scores)
                if has_both
                else np.nan,
            }
        )
    return pd.DataFrame(rows)


def confusion_table(predictions: Predictions) -> pd.DataFrame:
    """Count photos by diagnosis and prediction.

    Returns:
        One row per pair of classes, in class order, including pairs without photos: actual,
        predicted, photos, and share, of the photos of that diagnosis (NaN if there are none).
    """
    labels = predictions.labels
    counts = confusion_matrices(predictions.predicted, labels, np.ones((1, len(labels))))[0]
    shares = ratio(counts, counts.sum(axis=1, keepdims=True))
    return pd.DataFrame(
        {
            "actual": np.repeat(CODES, len(CODES)),
            "predicted": np.tile(CODES, len(CODES)),
            "photos": counts.astype(int).ravel(),
            "share": shares.ravel(),
        }
    )


def subgroup_table(predictions: Predictions) -> pd.DataFrame:
    """Evaluate photos by sex, age, site and how the diagnosis was confirmed.

    Returns:
        Columns group, photos, lesions, melanomas (lesions), accuracy with low and high (Wilson's
        interval for `effective_count` cases), balanced_accuracy, malignant_auc,
        melanoma_sensitivity. With fewer than MIN_CASES photos all metrics are NaN; with fewer
        than MIN_CASES melanomas, melanoma_sensitivity is. `unknown` is a group too.
    """
    rows = []
    for group, chosen in _groups(predictions.photos).items():
        part = predictions.subset(chosen)
        lesions = part.photos["lesion_id"]
        melanomas = lesions[part.labels == MELANOMA].nunique()
        enough = len(part.labels) >= MIN_CASES
        values = point_estimates(part) if enough else dict.fromkeys(TITLES, np.nan)
        low, high = wilson_interval(values["accuracy"], effective_count(lesions))
        sensitivity = values["melanoma_sensitivity"] if melanomas >= MIN_CASES else np.nan
        rows.append(
            {
                "group": group,
                "photos": len(part.labels),
                "lesions": lesions.nunique(),
                "melanomas": melanomas,
                "accuracy": values["accuracy"],
                "low": low,
                "high": high,
                "balanced_accuracy": values["balanced_accuracy"],
                "malignant_auc": values["malignant_auc"],
                "melanoma_sensitivity": sensitivity,
            }
        )
    return pd.DataFrame(rows)


def traits_of(photos: pd.DataFrame) -> dict[str, pd.Series]:
    """List the traits that a table of n photos has: sex, age in bands, site, confirmed by."""
    traits: dict[str, pd.Series] = {}
    if "sex" in photos:
        traits["sex"] = photos["sex"]
    if "age" in photos:
        age = pd.to_numeric(photos["age"], errors="coerce")
        bands = pd.cut(age, [0, 40, 60, 200], right=False, labels=["0–39", "40–59", "60 and over"])
        traits["age"] = bands.astype(object).fillna("unknown")
    if "localization" in photos:
        traits["site"] = photos["localization"]
    if "dx_type" in photos:
        histology = photos["dx_type"] == "histo"
        traits["confirmed by"] = histology.map({True: "histology", False: "other"})
    return traits


def _groups(photos: pd.DataFrame) -> dict[str, np.ndarray]:
    """Divide photos by each trait that the table has: group to (n,) bool."""
    return {
        f"{trait}: {group}": (values == group).to_numpy()
        for trait, values in traits_of(photos).items()
        for group in sorted(values.dropna().unique())
    }


def all_tables(
    predictions: Predictions, resamples: dict[str, Floats], card: ModelCard
) -> dict[str, pd.DataFrame]:
    """Make every table of one model for plots/, by its name in TABLES."""
    labels = predictions.labels
    before = reliability_table(predictions.uncalibrated, labels)
    after = reliability_table(predictions.probabilities, labels)
    return {
        "metrics": metric_table(predictions, resamples),
        "per_class": per_class_table(predictions),
        "confusion": confusion_table(predictions),
        "decisions": decision_table(predictions, card),
        "operating_points": operating_point_table(predictions, card.operating_points),
        "net_benefit": net_benefit_table(predictions),
        "selective": selective_table(predictions),
        "subgroups": subgroup_table(predictions),
        "thresholds": threshold_table(predictions.probabilities, labels),
        "reliability": pd.concat(
            [
                before.assign(calibration="before"),
                after.assign(calibration="after"),
            ]
        ),
    }
