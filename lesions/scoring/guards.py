"""Guards: when there are too few photos for a metric, an interval or a threshold to mean anything.

Every table uses these, so a number that is withheld in one is withheld in all.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions.common.types import Bools

MIN_GROUPS = 30  # fewest lesions or patients for a bootstrap: resamples of fewer hardly differ
MIN_CASES = 10  # fewest cases of a group or class, or photos of a subgroup
MAX_UNDEFINED = 0.05  # largest share of resamples in which a metric is not defined


def enough_groups(groups: "npt.NDArray[np.str_] | pd.Series[str]") -> bool:
    """Say whether there are enough lesions or patients for a bootstrap interval.

    Args:
        groups: (n,) the lesion or patient of each photo.
    """
    return len(np.unique(groups)) >= MIN_GROUPS


def enough_cases(groups: "pd.Series[str]", *parts: Bools) -> bool:
    """Say whether each part of the photos has enough lesions or patients.

    Args:
        groups: (n,) the lesion or patient of each photo.
        parts: (n,) which photos are in the part: the cases, for example, and the others.

    >>> groups = pd.Series([f"lesion {number // 2}" for number in range(20)])  # 10, 2 photos each
    >>> enough_cases(groups, np.ones(20, bool)), enough_cases(groups, np.arange(20) < 18)
    (True, False)
    """
    return all(groups[part].nunique() >= MIN_CASES for part in parts)
