"""The model card: all that is needed to use a model file, and how it was made."""

import platform
from typing import Any

import torch
import torchvision
from pydantic import BaseModel, ConfigDict

from lesions.common.params import Network

FORMAT = 2


class ModelCard(BaseModel):
    """Stored as JSON inside every model file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str  # the network's key in the table of networks
    network: Network
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]  # of the training photos, pixels in [0, 1]
    std: tuple[float, float, float]
    temperature: float  # divides the logits; fitted on validation
    confidence_threshold: float  # reached by the top probability of 95 % of validation photos
    distance_threshold: float  # not exceeded by the feature distance of 95 % of validation photos
    weights: str  # what training started from
    seed: int
    recipe: dict[str, Any]  # the parameters of training
    observations: dict[str, int]  # of each diagnosis, after balancing
    precision: str  # of the training computations
    device: str
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """List the versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
