"""Balancing: how many times each training observation is repeated, by its class."""

import math
from collections.abc import Sequence

import pandas as pd


def balancing_factors(counts: dict[str, int], method: str) -> dict[str, int]:
    """Find how many times the observations of each class are to be used.

    Args:
        counts: observations of each class, at least one.
        method: `multiply`, the whole number that brings the class nearest to the largest one
            (the smaller of two equally near); `sqrt`, the square root of that, rounded; `none`.

    Returns:
        A dict from class to factor, each at least 1.

    >>> balancing_factors({"a": 5403, "b": 935, "c": 107}, "multiply")
    {'a': 1, 'b': 6, 'c': 50}
    >>> balancing_factors({"a": 5403, "b": 935, "c": 107}, "sqrt")
    {'a': 1, 'b': 2, 'c': 7}
    """
    largest = max(counts.values())
    factors = {}
    for code, count in counts.items():
        nearest = max(1, math.ceil(largest / count - 0.5))
        factors[code] = {"multiply": nearest, "sqrt": round(math.sqrt(nearest)), "none": 1}[method]
    return factors


def balance(
    train: pd.DataFrame, classes: Sequence[str], method: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Repeat training observations by their class.

    Args:
        train: the training rows, one per photo.
        classes: in their order.
        method: as in `balancing_factors`.

    Returns:
        The rows, each repeated, copies one after the other; and a summary with one row per
        class: columns dx, photos, factor, observations.
    """
    sizes = train["dx"].value_counts()
    counts = {code: int(sizes[code]) for code in classes if code in sizes}
    factors = balancing_factors(counts, method)
    repeated = train.loc[train.index.repeat(train["dx"].map(factors))]
    summary = pd.DataFrame(
        {"dx": code, "photos": n, "factor": factors[code], "observations": n * factors[code]}
        for code, n in counts.items()
    )
    return repeated.reset_index(drop=True), summary
