"""The parameters of the study: params.yaml, checked as a whole before any stage starts."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lesions.errors import LesionsError

PATH = Path("params.yaml")

Share = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Model = Literal["resnet50", "mobilenetv2"]
Weights = Literal["auto", "imagenet", "random"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Augment(_Strict):
    """Largest random change of a training photo; units stand in params.yaml."""

    horizontal_flip: Probability
    vertical_flip: Probability
    rotation: Annotated[float, Field(ge=0, le=180)]
    brightness: Probability
    contrast: Probability
    saturation: Probability
    hue: Annotated[float, Field(ge=0, le=0.5)]


class Params(_Strict):
    """The content of params.yaml, whose comments say what each value does."""

    source: Annotated[str, Field(min_length=1)]
    sample_seed: Seed
    external_test: Annotated[str, Field(min_length=1)]
    image_size: Annotated[int, Field(ge=32, le=1024)]
    split_seed: Seed
    val_share: Share
    test_share: Share
    holdout: Literal["once-photographed", "any-lesion"]
    balance: Literal["multiply", "sqrt", "none"]
    weights: Weights | dict[Model, Weights]
    seed: Seed
    lr: Annotated[float, Field(gt=0, le=1)]
    schedule: Literal["constant", "cosine"]
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    epochs: Annotated[int, Field(ge=1, le=10000)]
    keep: Literal["best", "last"]
    augment: Augment
    precision: Literal["auto", "bf16", "fp32"]
    device: Literal["auto", "cuda", "mps", "cpu"]
    devices: Annotated[int, Field(ge=1, le=4096)] | Literal["all"]
    deterministic: bool

    @model_validator(mode="after")
    def _something_left_to_train_on(self) -> "Params":
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share {self.val_share} and test_share {self.test_share} leave no training "
                "set: their sum must be below 1"
            )
        return self

    def starting_weights(self, model: str) -> Literal["imagenet", "random"]:
        """Say what `model` starts from: decided by the parameters, never by the network."""
        chosen: Weights
        if isinstance(self.weights, str):
            chosen = self.weights
        else:
            chosen = {str(name): word for name, word in self.weights.items()}.get(model, "auto")
        if chosen == "auto":
            return "random" if self.source == "sample" else "imagenet"
        return chosen


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number and refuses a key given twice, as DVC does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"key {twice[0]!r} is given twice")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_params(path: Path = PATH) -> Params:
    """Read and check all parameters.

    Raises:
        LesionsError: every wrong key with the value found and what is allowed.
    """
    try:
        values: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise LesionsError(
            f"{path}: {error.strerror}. Run from the project's root, where it lies."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise LesionsError(f"{path}: not valid YAML: {why}") from None
    if not isinstance(values, dict):
        raise LesionsError(f"{path}: holds {type(values).__name__}, not keys with values.")
    try:
        return Params.model_validate(values)
    except ValidationError as invalid:
        lines: dict[object, str] = {}
        for wrong in invalid.errors():
            # Of the two forms of these pydantic explains both; one line will do.
            key = wrong["loc"][:1]
            place = key if key in (("weights",), ("devices",)) else wrong["loc"]
            lines.setdefault(place, _explain(dict(wrong)))
        raise LesionsError(f"{path}: " + "; ".join(lines.values())) from None


def _explain(error: dict[str, Any]) -> str:
    """Say in one line which key is wrong, what was found and what is allowed."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        group = Augment if key.startswith("augment.") else Params
        return f"unknown key {key!r}; known here: {', '.join(group.model_fields)}"
    if error["type"] == "missing":
        return f"key {key!r} is missing; take its line from the published params.yaml"
    if key.startswith("devices"):
        return f"devices is {error['input']!r}: allowed are a number from 1 to 4096, or all"
    if key.startswith("weights"):
        return (
            f"weights is {error['input']!r}: allowed are {', '.join(get_args(Weights))}, "
            f"or one of them for each of {', '.join(get_args(Model))}"
        )
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{key} is {error['input']!r}: {error['msg'].replace('Input', 'it', 1)}"
