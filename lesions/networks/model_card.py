"""The model card: all that is needed to use a model file, and how it was made."""

import platform
from typing import Annotated

import numpy as np
import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lesions.common.params import NetworkSpec, Recipe
from lesions.common.types import Floats, Labels
from lesions.dataset.description import Description
from lesions.networks.hardware import Precision
from lesions.scoring.calibration import LARGEST_BIAS, Calibration
from lesions.scoring.operating_points import OperatingPoint
from lesions.scoring.rules import Decision, decide

FORMAT = 4

Share = Annotated[float, Field(ge=0, le=1)]
Channels = tuple[Share, Share, Share]
_Spread = Annotated[float, Field(ge=1e-4, le=1)]
Spread = tuple[_Spread, _Spread, _Spread]
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Fitted(_Strict):
    """What was fitted to validation photos after training."""

    # The logits are divided by the temperature, then the bias of each class is added.
    temperature: Annotated[float, Field(ge=0.05, le=20)]
    bias: tuple[Annotated[float, Field(ge=-LARGEST_BIAS, le=LARGEST_BIAS)], ...]
    prevalence: tuple[Share, ...]  # share of each class among the validation lesions
    prevalence_exponent: Share  # of the decision `balanced`
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
        prevalence = np.array(self.prevalence)
        return decide(probabilities, decision, prevalence, self.prevalence_exponent)


class ModelCard(_Strict):
    """Stored as JSON inside every model file."""

    format: int = FORMAT
    name: Text  # the network's key in the table of networks
    network: NetworkSpec
    dataset: Description  # as it was when training started
    image_size: Annotated[int, Field(ge=32, le=1024)]
    mean: Channels  # of the training photos, pixels in [0, 1]
    std: Spread
    fitted: Fitted | None  # None while it is being trained
    weights: Text  # what training started from
    seed: int
    recipe: Recipe
    observations: dict[Text, int]  # of each class, after balancing
    precision: Precision  # of the training computations
    device: Text  # several, if training was resumed on another
    versions: dict[Text, Text]

    @model_validator(mode="after")
    def _check_fitted(self) -> "ModelCard":
        if self.fitted is None:
            return self
        lengths = {len(self.fitted.bias), len(self.fitted.prevalence)}
        if lengths != {len(self.dataset.classes)}:
            raise ValueError("fitted has another number of classes than dataset")
        if unknown := {point.group for point in self.fitted.operating_points} - set(
            self.dataset.groups
        ):
            raise ValueError(f"fitted has operating points for {min(unknown)!r}, not a group")
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs."""
        return self.dataset.classes

    @property
    def use(self) -> Fitted:
        """What was fitted; every model in a file has it."""
        assert self.fitted is not None
        return self.fitted


def versions() -> dict[str, str]:
    """List the versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
