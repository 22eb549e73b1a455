"""Subgroups: for whom a model is better or worse."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from lesions.common.types import Bools
from lesions.evaluation.predictions import Predictions
from lesions.scoring.intervals import MIN_CASES, effective_count, wilson_interval
from lesions.scoring.metrics import metrics_of


def traits_of(photos: pd.DataFrame) -> dict[str, "pd.Series[str]"]:
    """List the traits that a table of n photos has: sex, age in bands, site, confirmed by."""
    traits: dict[str, pd.Series[str]] = {}
    if "sex" in photos:
        traits["sex"] = photos["sex"].replace("", "unknown")
    if "age" in photos:
        age = pd.to_numeric(photos["age"], errors="coerce")
        bands = pd.cut(age, [0, 40, 60, 200], right=False, labels=["0–39", "40–59", "60 and over"])
        traits["age"] = bands.astype(object).fillna("unknown")
    if "localization" in photos:
        traits["site"] = photos["localization"].replace("", "unknown")
    if "dx_type" in photos:
        histology = photos["dx_type"].str.casefold().str.contains("histo")
        traits["confirmed by"] = histology.map({True: "histology", False: "other"})
    return traits


def _parts(photos: pd.DataFrame) -> dict[str, Bools]:
    """Divide photos by each trait that the table has: subgroup to (n,) bool."""
    return {
        f"{trait}: {group}": (values == group).to_numpy()
        for trait, values in traits_of(photos).items()
        for group in sorted(values.dropna().unique())
    }


def subgroup_table(
    predictions: Predictions, point_estimates: Callable[[Predictions], dict[str, float]]
) -> pd.DataFrame:
    """Evaluate photos by sex, age, site and how the class was confirmed.

    Args:
        predictions: of one model.
        point_estimates: computes every metric.

    Returns:
        Columns group, photos, lesions, accuracy with low and high (Wilson's interval for
        `effective_count` cases), balanced_accuracy, and of the watched group cases (lesions) and
        sensitivity, of each group of classes its AUC. With fewer than MIN_CASES photos all metrics
        are NaN; with fewer than MIN_CASES of a group, those of the group are. `unknown` is a
        subgroup too.
    """
    dataset, rows = predictions.dataset, []

    def cases_of(part: Predictions, group: str | None) -> int:
        of_group = np.isin(part.labels, dataset.indices(group) if group else [])
        return int(part.groups[of_group].nunique())

    metrics = metrics_of(dataset)
    about_groups = [key for key, metric in metrics.items() if metric.group]
    for name, chosen in _parts(predictions.photos).items():
        part = predictions.subset(chosen)
        enough = len(part.labels) >= MIN_CASES
        values = point_estimates(part) if enough else dict.fromkeys(metrics, np.nan)
        for key, metric in metrics.items():
            if metric.group and cases_of(part, metric.group) < MIN_CASES:
                values[key] = np.nan
        low, high = wilson_interval(values["accuracy"], effective_count(part.groups))
        rows.append(
            {
                "group": name,
                "photos": len(part.labels),
                "lesions": part.groups.nunique(),
                "cases": cases_of(part, dataset.watched),
                "accuracy": values["accuracy"],
                "low": low,
                "high": high,
                "balanced_accuracy": values["balanced_accuracy"],
                **{key: values[key] for key in about_groups},
            }
        )
    columns = ["group", "photos", "lesions", "cases", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "balanced_accuracy", *about_groups])
