"""The model card: all that is needed to use a model file, and how it was made."""

import platform
from typing import Annotated, get_args

import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lesions.common.params import NetworkSpec, Recipe, Views
from lesions.dataset.description import Description
from lesions.networks.batches import LEAST_STD
from lesions.networks.hardware import Precision
from lesions.scoring.fitted import Fitted

FORMAT = 5

_Share = Annotated[float, Field(ge=0, le=1)]
Channels = tuple[_Share, _Share, _Share]
_Spread = Annotated[float, Field(ge=LEAST_STD, le=1)]
Spread = tuple[_Spread, _Spread, _Spread]
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelCard(_Strict):
    """Stored as JSON inside every model file."""

    format: int = FORMAT
    name: Text  # the network's key in the table of networks
    network: NetworkSpec
    dataset: Description  # as it was when training started
    image_size: Annotated[int, Field(ge=32, le=1024)]
    mean: Channels  # of the training photos, pixels in [0, 1]
    std: Spread
    fitted: tuple[Fitted, ...]  # one for each number of views; empty while it is being trained
    weights: Text  # what training started from
    seed: int
    recipe: Recipe
    observations: dict[Text, int]  # of each class, after balancing
    precision: Precision  # of the training computations
    device: Text  # several, if training was resumed on another
    versions: dict[Text, Text]

    @model_validator(mode="after")
    def _check_fitted(self) -> "ModelCard":
        for fitted in self.fitted:
            if {len(fitted.bias), len(fitted.prevalence)} != {len(self.dataset.classes)}:
                raise ValueError("fitted has another number of classes than dataset")
            named = {point.group for point in fitted.operating_points} | set(fitted.cases)
            if unknown := named - set(self.dataset.groups):
                raise ValueError(f"fitted names {min(unknown)!r}, which is not a group")
        if self.fitted and {fitted.views for fitted in self.fitted} != set(get_args(Views)):
            raise ValueError("fitted is not for 1 and for 4 views")
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs."""
        return self.dataset.classes

    def use(self, views: int) -> Fitted:
        """Find what was fitted for outputs averaged over so many views."""
        return next(fitted for fitted in self.fitted if fitted.views == views)


def versions() -> dict[str, str]:
    """List the versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
