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
from scipy.special import betaincinv

from lesions.common.params import Name
from lesions.common.types import Floats, Labels
from lesions.dataset.splits import photo_weights
from lesions.scoring.guards import enough_cases

SENSITIVITIES = (0.80, 0.90, 0.95)
CONFIDENCE = 0.95  # that an assured threshold reaches its sensitivity on new photos
DECIMALS = 6

Share = Annotated[float, Field(ge=0, le=1)]


class OperatingPoint(BaseModel):
    """A threshold, and how sure it is that it reaches its sensitivity elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    group: Name
    sensitivity: Share  # that the threshold reaches, at least, on the validation lesions
    # Whether it is so low that it reaches the sensitivity on new photos too, with CONFIDENCE.
    assured: bool
    threshold: Share  # of `score`; a photo at or above it is to be referred
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
    distributed (Wilks 1941, doi 10.1214/aoms/1177731788). Its mean is k / (n + 1): a threshold that
    just reaches .90 in validation can be expected to find a little less. So there is a second,
    assured threshold, below which that distribution has 1 - CONFIDENCE: a tolerance limit. The
    same photos have chosen the epoch and the calibration, so both are a little too optimistic.

    Args:
        probabilities, labels: of n validation photos.
        units: (n,) the lesion or patient of each photo; its cases together count once.
        groups: the class indices of each group.

    Returns:
        The highest thresholds that reach the sensitivities; none for a group with fewer than
        guards.MIN_CASES lesions, and no assured one where even all lesions are too few for it.

    >>> probabilities = np.eye(7)[[4] * 10] * np.linspace(0.1, 1, 10)[:, None]
    >>> points = fit_operating_points(
    ...     probabilities, np.full(10, 4), pd.Series(list("abcdefghij")), {"four": [4]}
    ... )
    >>> points[1].group, points[1].sensitivity, points[1].threshold, points[1].low
    ('four', 0.9, 0.2, 0.555)
    """
    points = []
    for group, members in groups.items():
        cases = np.isin(labels, list(members))
        if not enough_cases(units, cases):
            continue
        scores, lesions = score(probabilities, members)[cases], photo_weights(units[cases])
        order = np.argsort(-scores, kind="stable")
        found = np.cumsum(lesions[order])
        total = round(float(found[-1]))
        # The sensitivity that CONFIDENCE of new samples exceed, by the number found.
        floor = betaincinv(np.arange(1, total + 1), np.arange(total, 0, -1), 1 - CONFIDENCE)
        for sensitivity in SENSITIVITIES:
            needed = {False: sensitivity * found[-1]}
            if floor[-1] >= sensitivity:
                needed[True] = float(1 + np.argmax(floor >= sensitivity))
            for assured, count in needed.items():
                threshold = scores[order][int(np.argmax(found >= count - 1e-9))]
                reached = max(1, round(float(lesions[scores >= threshold].sum())))
                low, high = betaincinv(reached, total + 1 - reached, [0.025, 0.975])
                points.append(
                    OperatingPoint(
                        group=group,
                        sensitivity=sensitivity,
                        assured=assured,
                        # Rounded down, so that the lesion which it was taken from is still found.
                        threshold=float(np.floor(threshold * 10**DECIMALS) / 10**DECIMALS),
                        low=round(float(low), 4),
                        high=round(float(high), 4),
                    )
                )
    return tuple(points)
