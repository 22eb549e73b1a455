"""Operating points: thresholds that find a wanted share of a group's photos.

The most probable class is one decision; whom to refer to a doctor is another. A threshold on the
probability of a group, which is that of all its classes together, is chosen on validation photos,
so that it reaches a sensitivity there. Test photos then show what it is worth.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import beta

from lesions.common.params import Name
from lesions.common.types import Floats, Labels
from lesions.dataset.splits import photo_weights

SENSITIVITIES = (0.80, 0.90, 0.95)
DECIMALS = 6

Share = Annotated[float, Field(ge=0, le=1)]


class OperatingPoint(BaseModel):
    """A threshold, and how sure it is that it reaches its sensitivity elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    group: Name
    sensitivity: Share  # that the threshold reaches, at least, on the validation lesions
    threshold: Share  # of `score`; a photo at or above it is to be referred
    cases: Annotated[int, Field(ge=1)]  # of the group, in validation
    # 95 % interval of the sensitivity to be expected on new photos of the same kind.
    low: Share
    high: Share


def score(probabilities: Floats, members: Sequence[int]) -> Floats:
    """Compute the probability of a group, given its class indices: (n, classes) to (n,)."""
    return np.asarray(probabilities[:, list(members)].sum(axis=1))


def fit_operating_points(
    probabilities: Floats,
    labels: Labels,
    units: "pd.Series[str]",
    groups: Mapping[str, Sequence[int]],
) -> tuple[OperatingPoint, ...]:
    """Choose thresholds on validation photos, for each group and each of SENSITIVITIES.

    If k of n lesions are at or above a threshold that is one of their scores, the sensitivity on
    new lesions follows the beta distribution with k and n + 1 - k, however the scores are
    distributed (Wilks 1941, doi 10.1214/aoms/1177731788). The same photos have chosen the epoch and
    the calibration, so the interval is a little too optimistic.

    Args:
        probabilities, labels: of n validation photos.
        units: (n,) the lesion or patient of each photo; its cases together count once.
        groups: the class indices of each group.

    Returns:
        The highest thresholds that reach the sensitivities; none for a group without photos.

    >>> probabilities = np.eye(7)[[4] * 10] * np.linspace(0.1, 1, 10)[:, None]
    >>> points = fit_operating_points(
    ...     probabilities, np.full(10, 4), pd.Series(list("abcdefghij")), {"four": [4]}
    ... )
    >>> points[1].group, points[1].sensitivity, points[1].threshold, points[1].low.__round__(2)
    ('four', 0.9, 0.2, 0.56)
    """
    points = []
    for group, members in groups.items():
        cases = np.isin(labels, list(members))
        if not cases.any():
            continue
        scores, lesions = score(probabilities, members)[cases], photo_weights(units[cases])
        order = np.argsort(-scores, kind="stable")
        found = np.cumsum(lesions[order])
        total = round(float(found[-1]))
        for sensitivity in SENSITIVITIES:
            last = int(np.argmax(found >= sensitivity * found[-1] - 1e-9))
            threshold = scores[order][last]
            reached = max(1, round(float(lesions[scores >= threshold].sum())))
            expected = beta(reached, total + 1 - reached)
            points.append(
                OperatingPoint(
                    group=group,
                    sensitivity=sensitivity,
                    # Rounded down, so that the lesion which it was taken from is still found.
                    threshold=float(np.floor(threshold * 10**DECIMALS) / 10**DECIMALS),
                    cases=total,
                    low=round(float(expected.ppf(0.025)), 4),
                    high=round(float(expected.ppf(0.975)), 4),
                )
            )
    return tuple(points)
