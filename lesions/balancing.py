"""Balance: how often each training observation is repeated, by its diagnosis."""

import math

import pandas as pd

from lesions.diagnoses import CODES


def factors(counts: dict[str, int], method: str) -> dict[str, int]:
    """Find how often a class of each size is to be repeated.

    Args:
        counts: observations of each class, at least one.
        method: `multiply`, the whole number that brings the class nearest to the largest one
            (the smaller of two equally near); `sqrt`, the square root of that, rounded; `none`.

    Returns:
        Class to factor, each at least 1.
    """
    largest = max(counts.values())
    found = {}
    for code, count in counts.items():
        nearest = max(1, math.ceil(largest / count - 0.5))
        found[code] = {"multiply": nearest, "sqrt": round(math.sqrt(nearest)), "none": 1}[method]
    return found


def balance(train: pd.DataFrame, method: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Repeat training observations by their diagnosis.

    Args:
        train: the training manifest, a row a photo.
        method: as in `factors`.

    Returns:
        The rows, each repeated, copies side by side; and what was done: columns dx, photos,
        factor, observations, a row a diagnosis.
    """
    sizes = train["dx"].value_counts()
    counts = {code: int(sizes[code]) for code in CODES if code in sizes}
    factor = factors(counts, method)
    repeated = train.loc[train.index.repeat(train["dx"].map(factor))]
    done = pd.DataFrame(
        {"dx": code, "photos": n, "factor": factor[code], "observations": n * factor[code]}
        for code, n in counts.items()
    )
    return repeated.reset_index(drop=True), done
