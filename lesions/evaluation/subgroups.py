"""Subgroups: for whom a model is better or worse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lesions.common.types import Bools
from lesions.evaluation.predictions import Predictions
from lesions.scoring.guards import MIN_CASES
from lesions.scoring.intervals import effective_count, wilson_interval


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
    if (histology := by_histology(photos)) is not None:
        names = {True: "histology", False: "other"}
        traits["confirmed by"] = pd.Series(histology, index=photos.index).map(names)
    return traits


def by_histology(photos: pd.DataFrame) -> Bools | None:
    """Say which of n photos have a class that was confirmed by histology; None if unknown."""
    if "dx_type" not in photos:
        return None
    return photos["dx_type"].str.casefold().str.contains("histo").to_numpy(dtype=bool)


def _parts(photos: pd.DataFrame) -> dict[str, Bools]:
    """Divide photos by each trait that the table has: subgroup to (n,) bool."""
    return {
        f"{trait}: {group}": (values == group).to_numpy()
        for trait, values in traits_of(photos).items()
        for group in sorted(values.dropna().unique())
    }


def subgroup_table(
    predictions: Predictions, metrics: Callable[[Predictions], dict[str, float]]
) -> pd.DataFrame:
    """Evaluate photos by sex, age, site and how the class was confirmed.

    Args:
        predictions: of one model.
        metrics: computes those that a subgroup can be judged by, `accuracy` and others.

    Returns:
        Columns group, photos, lesions, accuracy with low and high (Wilson's interval for
        `effective_count` cases), baseline (the accuracy of always predicting the subgroup's most
        common class), and the other metrics. All are NaN with fewer than MIN_CASES lesions.
        `unknown` is a subgroup too.
    """
    others = [key for key in metrics(predictions) if key != "accuracy"]
    rows: list[dict[str, Any]] = []
    for name, chosen in _parts(predictions.photos).items():
        part = predictions.subset(chosen)
        lesions = part.groups.nunique()
        row: dict[str, Any] = {"group": name, "photos": len(part.labels), "lesions": lesions}
        if lesions >= MIN_CASES:
            row |= metrics(part)
            low, high = wilson_interval(row["accuracy"], effective_count(part.groups))
            row |= {"low": low, "high": high}
            row["baseline"] = np.bincount(part.labels).max() / len(part.labels)
        rows.append(row)
    columns = ["group", "photos", "lesions", "accuracy", "low", "high", "baseline", *others]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))
