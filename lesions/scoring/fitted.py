"""What is fitted to validation photos after training: all that turns logits into decisions."""

from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from lesions.common.params import Decision, Name, Views
from lesions.common.types import Floats, Labels
from lesions.dataset.description import Description
from lesions.dataset.splits import photo_weights
from lesions.scoring.calibration import LARGEST_BIAS, Calibration, fit_calibration, known_shift
from lesions.scoring.operating_points import OperatingPoint, fit_operating_points
from lesions.scoring.rules import decide

FLAGGED = 0.05  # share of the validation photos that each of the two flags marks

Share = Annotated[float, Field(ge=0, le=1)]


class Fitted(BaseModel):
    """Calibration, prevalence, thresholds and flags, for outputs averaged over some views."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    views: Views
    # The logits are divided by the temperature, then the bias of each class is added.
    temperature: Annotated[float, Field(ge=0.05, le=20)]
    bias: tuple[Annotated[float, Field(ge=-LARGEST_BIAS, le=LARGEST_BIAS)], ...]
    prevalence: tuple[Share, ...]  # share of each class among the validation lesions
    cases: dict[Name, Annotated[int, Field(ge=0)]]  # validation lesions of each group
    operating_points: tuple[OperatingPoint, ...]
    # 95 % of the validation photos have at least this highest probability ...
    confidence_threshold: Share
    # ... and at most this distance from the training photos, in feature space.
    distance_threshold: Annotated[float, Field(ge=0, le=2)]

    @property
    def calibration(self) -> Calibration:
        """What turns the network's logits into probabilities."""
        return Calibration(self.temperature, self.bias)

    def decide(self, probabilities: Floats, decision: Decision) -> Labels:
        """Predict a class for each photo: (n, classes) to (n,); see `rules.decide`."""
        return decide(probabilities, decision, np.array(self.prevalence))


def fit(
    logits: Floats,
    distances: Floats,
    labels: Labels,
    units: "pd.Series[str]",
    dataset: Description,
    trained: Floats,
    views: Views,
) -> Fitted:
    """Fit everything on validation photos, where each lesion or patient counts once.

    Args:
        logits: (n, classes), computed in fp32 and averaged over `views`, as they will be used.
        distances: (n,) from the training photos, see `out_of_distribution`.
        labels: (n,) class indices.
        units: (n,) the lesion or patient of each photo.
        dataset: names classes and groups.
        trained: (classes,) how often training used each class, in any unit.
        views: of the logits.
    """
    weights = photo_weights(units)
    counts: Floats = np.bincount(labels, weights, len(dataset.classes)).astype(np.float64)
    calibration = fit_calibration(logits, labels, weights, known_shift(trained, counts))
    probabilities = calibration.probabilities(logits)
    groups = {group: dataset.indices(group) for group in dataset.groups}
    confidence = probabilities.max(axis=1)
    return Fitted(
        views=views,
        temperature=calibration.temperature,
        bias=calibration.bias,
        prevalence=tuple((counts / counts.sum()).round(6).tolist()),
        cases={name: int(units[np.isin(labels, ids)].nunique()) for name, ids in groups.items()},
        operating_points=fit_operating_points(probabilities, labels, units, groups),
        confidence_threshold=round(float(np.quantile(confidence, FLAGGED)), 6),
        distance_threshold=round(float(np.quantile(distances, 1 - FLAGGED)), 6),
    )
