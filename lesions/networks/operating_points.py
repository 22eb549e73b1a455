"""Operating points: thresholds that find a wanted share of the malignant lesions.

The most probable diagnosis is one decision; whom to refer to a doctor is another. A threshold on
the probability of melanoma, or of all malignant diagnoses together, is chosen on validation photos,
so that it reaches a sensitivity there. Test photos then show what it is worth.
"""

from typing import Annotated, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import beta

from lesions.dataset.diagnoses import CODES, MALIGNANT, Labels

Floats = npt.NDArray[np.floating]
Target = Literal["melanoma", "malignant"]
TARGETS: tuple[Target, ...] = get_args(Target)
SENSITIVITIES = (0.80, 0.90, 0.95)
DECIMALS = 6

Share = Annotated[float, Field(ge=0, le=1)]


class OperatingPoint(BaseModel):
    """A threshold, and how sure it is that it reaches its sensitivity elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target: Target
    sensitivity: Share  # that the threshold reaches, at least, on the validation lesions
    threshold: Share  # of `score`; a photo at or above it is to be referred
    lesions: Annotated[int, Field(ge=1)]  # of the target, in validation
    # 95 % interval of the sensitivity to be expected on new lesions of the same kind.
    low: Share
    high: Share


def target_indices(target: Target) -> list[int]:
    """List the classes that a target consists of."""
    codes = ("mel",) if target == "melanoma" else MALIGNANT
    return [CODES.index(code) for code in codes]


def score(probabilities: Floats, target: Target) -> Floats:
    """Compute the probability of a target: (n, classes) to (n,)."""
    return np.asarray(probabilities[:, target_indices(target)].sum(axis=1))


def fit_operating_points(
    probabilities: Floats, labels: Labels, weights: Floats
) -> tuple[OperatingPoint, ...]:
    """Choose thresholds on validation photos, for each of TARGETS and SENSITIVITIES.

    If k of n lesions are at or above a threshold that is one of their scores, the sensitivity on
    new lesions follows the beta distribution with k and n + 1 - k, however the scores are
    distributed (Wilks 1941, doi 10.1214/aoms/1177731788). The same photos have chosen the epoch and
    the calibration, so the interval is a little too optimistic.

    Args:
        probabilities, labels: of n validation photos.
        weights: (n,) of each photo, such that those of a lesion sum to 1.

    Returns:
        The highest thresholds that reach the sensitivities; none for a target without lesions.

    >>> probabilities = np.eye(7)[[4] * 10] * np.linspace(0.1, 1, 10)[:, None]  # melanomas
    >>> points = fit_operating_points(probabilities, np.full(10, 4), np.ones(10))
    >>> points[1].target, points[1].sensitivity, points[1].threshold, points[1].low.__round__(2)
    ('melanoma', 0.9, 0.2, 0.56)
    """
    points = []
    for target in TARGETS:
        cases = np.isin(labels, target_indices(target))
        if not cases.any():
            continue
        scores, lesions = score(probabilities, target)[cases], weights[cases]
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
                    target=target,
                    sensitivity=sensitivity,
                    # Rounded down, so that the lesion which it was taken from is still found.
                    threshold=float(np.floor(threshold * 10**DECIMALS) / 10**DECIMALS),
                    lesions=total,
                    low=round(float(expected.ppf(0.025)), 4),
                    high=round(float(expected.ppf(0.975)), 4),
                )
            )
    return tuple(points)
