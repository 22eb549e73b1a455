"""The model card: all that is needed to use a model file, and how it was made."""

import platform
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field, field_validator

from lesions.common.params import Augment, Network
from lesions.dataset.diagnoses import CODES, Labels
from lesions.networks.calibration import LARGEST_BIAS, Calibration
from lesions.networks.decision import Decision, decide
from lesions.networks.hardware import Precision
from lesions.networks.operating_points import OperatingPoint

FORMAT = 3

Channels = tuple[
    Annotated[float, Field(ge=0, le=1)],
    Annotated[float, Field(ge=0, le=1)],
    Annotated[float, Field(ge=0, le=1)],
]
Spread = tuple[
    Annotated[float, Field(ge=1e-4, le=1)],
    Annotated[float, Field(ge=1e-4, le=1)],
    Annotated[float, Field(ge=1e-4, le=1)],
]
PerClass = Annotated[
    tuple[Annotated[float, Field(ge=-LARGEST_BIAS, le=LARGEST_BIAS)], ...],
    Field(min_length=len(CODES), max_length=len(CODES)),
]
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


# Of a network that has not been fitted to validation photos.
UNFITTED: dict[str, Any] = {
    "temperature": 1.0,
    "bias": (0.0,) * len(CODES),
    "prevalence": (round(1 / len(CODES), 6),) * len(CODES),
    "prevalence_exponent": 0.0,
    "operating_points": (),
    "confidence_threshold": 0.0,
    "distance_threshold": 0.0,
}


class ModelCard(BaseModel):
    """Stored as JSON inside every model file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: int = FORMAT
    name: Text  # the network's key in the table of networks
    network: Network
    classes: tuple[Text, ...]
    image_size: Annotated[int, Field(ge=32, le=1024)]
    mean: Channels  # of the training photos, pixels in [0, 1]
    std: Spread
    # Fitted on validation: the logits are divided by the temperature, then the bias is added.
    temperature: Annotated[float, Field(ge=0.05, le=20)]
    bias: PerClass
    prevalence: PerClass  # share of each diagnosis among the validation lesions
    prevalence_exponent: Annotated[float, Field(ge=0, le=1)]  # of the decision `balanced`
    operating_points: tuple[OperatingPoint, ...]
    # Reached by the highest probability of 95 % of the validation photos.
    confidence_threshold: Annotated[float, Field(ge=0, le=1)]
    # Not exceeded by the feature distance of 95 % of the validation photos.
    distance_threshold: Annotated[float, Field(ge=0, le=2)]
    weights: Text  # what training started from
    seed: int
    recipe: dict[str, Any]  # the parameters of training
    observations: dict[Text, int]  # of each diagnosis, after balancing
    precision: Precision  # of the training computations
    device: Text  # several, if training was resumed on another
    versions: dict[Text, Text]

    @property
    def calibration(self) -> Calibration:
        """What turns the network's logits into probabilities."""
        return Calibration(self.temperature, self.bias)

    def decide(self, probabilities: npt.NDArray[np.floating], decision: Decision) -> Labels:
        """Predict a diagnosis for each photo: (n, classes) to (n,); see `decision.decide`."""
        prevalence = np.array(self.prevalence)
        return decide(probabilities, decision, prevalence, self.prevalence_exponent)

    @field_validator("recipe")
    @classmethod
    def _check_recipe(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(recipe.get("source"), str):
            raise ValueError("lacks `source`, a text")
        Augment.model_validate(recipe.get("augment"))
        if not (isinstance(size := recipe.get("batch_size", 32), int) and size > 0):
            raise ValueError("has a `batch_size` that is not a number above 0")
        return recipe


def versions() -> dict[str, str]:
    """List the versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
