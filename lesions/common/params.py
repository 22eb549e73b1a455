"""The parameters: params.yaml, checked as a whole before any stage starts."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lesions.common.errors import LesionsError

PATH = Path("params.yaml")
# What the pipeline writes; a source may not be in it.
OUTPUTS = [Path("data") / name for name in ("raw", "resized", "split", "balanced")]
OUTPUTS += [Path("data") / name for name in ("external", "predictions")]
OUTPUTS += [Path(name) for name in ("models", "metrics", "plots", "dvc_plots")]

Share = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
# Names become parts of file and stage names.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]
StartingWeights = Literal["imagenet", "random"]
Weights = Literal["auto", "imagenet", "random"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Augment(_Strict):
    """Largest random change of a training photo; params.yaml explains the units."""

    horizontal_flip: Probability
    vertical_flip: Probability
    rotation: Annotated[float, Field(ge=0, le=180)]
    brightness: Probability
    contrast: Probability
    saturation: Probability
    hue: Annotated[float, Field(ge=0, le=0.5)]


class Network(_Strict):
    """One entry of the table of networks."""

    title: Text  # in tables and plots
    torchvision: Text  # torchvision.models.get_model knows it by this name
    features: Text  # the submodule that makes the last feature map


class Params(_Strict):
    """The content of params.yaml, whose comments say what each value does."""

    source: Text
    sample_seed: Seed
    external_tests: dict[Name, Text]
    image_size: Annotated[int, Field(ge=32, le=1024)]
    split_seed: Seed
    val_share: Share
    test_share: Share
    same_lesion: Text
    holdout: Literal["once-photographed", "any-lesion", "any-photo"]
    balance: Literal["multiply", "sqrt", "none"]
    networks: Annotated[dict[Name, Network], Field(min_length=1)]
    weights: Weights | dict[Name, Weights]
    seed: Seed
    lr: Annotated[float, Field(gt=0, le=1)]
    schedule: Literal["constant", "cosine"]
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    epochs: Annotated[int, Field(ge=1, le=10000)]
    keep: Literal["best", "last"]
    augment: Augment
    shortcut: Probability
    decision: Literal["most-probable", "balanced"]
    views: Literal[1, 4]
    precision: Literal["auto", "bf16", "fp16", "tf32", "fp32"]
    device: Literal["auto", "cuda", "mps", "cpu"]
    devices: Annotated[int, Field(ge=1, le=4096)] | Literal["all"]
    deterministic: bool

    @model_validator(mode="after")
    def _check_combinations(self) -> "Params":
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share {self.val_share} and test_share {self.test_share} leave no training "
                "set: their sum must be below 1"
            )
        if isinstance(self.weights, dict) and (unknown := set(self.weights) - set(self.networks)):
            raise ValueError(
                f"weights names the network {min(unknown)!r}; known are {', '.join(self.networks)}"
            )
        for key, source in {"source": self.source, **self.external_tests}.items():
            folder = Path(os.path.realpath(os.path.expanduser(source)))  # noqa: PTH111
            if own := next((o for o in OUTPUTS if folder.is_relative_to(o.resolve())), None):
                raise ValueError(
                    f"{key} is {source!r}, in {own}/, which the pipeline writes: your photos would "
                    "be lost. Move them to another folder"
                )
        if taken := set(self.external_tests) & {"val", "test", *self.networks}:
            raise ValueError(
                f"external_tests uses the name {min(taken)!r}, which metrics/ and plots/ use "
                "already: choose another name"
            )
        return self

    def network(self, model: str) -> Network:
        """Find a network in the table.

        Raises:
            LesionsError: it is not there.
        """
        if model not in self.networks:
            raise LesionsError(
                f"model {model!r} is unknown; `networks` in {PATH} has {', '.join(self.networks)}."
            )
        return self.networks[model]

    def external_test(self, name: str) -> str:
        """Find the source of an external test set.

        Raises:
            LesionsError: it is not in the table.
        """
        if name not in self.external_tests:
            known = ", ".join(self.external_tests) or "none"
            raise LesionsError(f"external test {name!r} is unknown; {PATH} has {known}.")
        return self.external_tests[name]

    def starting_weights(self, model: str) -> StartingWeights:
        """Say what the training of `model` starts from."""
        chosen = self.weights if isinstance(self.weights, str) else self.weights.get(model, "auto")
        if chosen == "auto":
            return "random" if self.source == "sample" else "imagenet"
        return chosen


def load_params(path: Path = PATH) -> Params:
    """Read and check all parameters.

    The file is read as DVC reads it: YAML 1.2, by the same library.

    Raises:
        LesionsError: names every wrong key, the value found and what is allowed.
    """
    try:
        values: Any = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LesionsError(
            f"{path}: {error.strerror}. Run from the project's root, where the file is."
        ) from None
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        why = " ".join(str(error).partition("To suppress this check")[0].split())
        raise LesionsError(f"{path}: not valid YAML: {why}") from None
    if not isinstance(values, dict):
        raise LesionsError(f"{path}: holds {type(values).__name__}, not keys with values.")
    try:
        return Params.model_validate(values)
    except ValidationError as invalid:
        lines: dict[object, str] = {}
        for wrong in invalid.errors():
            # pydantic explains each form that these two may take; one line is enough.
            key = wrong["loc"][:1]
            location = key if key in (("weights",), ("devices",)) else wrong["loc"]
            lines.setdefault(location, _explain(dict(wrong)))
        raise LesionsError(f"{path}: " + "; ".join(lines.values())) from None


def _explain(error: dict[str, Any]) -> str:
    """Say in one line which key is wrong, what was found and what is allowed."""
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        groups: dict[str, type[_Strict]] = {"augment": Augment, "networks": Network}
        known = groups.get(key.partition(".")[0], Params).model_fields
        return f"unknown key {key!r}; known here: {', '.join(known)}"
    if error["type"] == "missing":
        return f"key {key!r} is missing; copy its line from the published params.yaml"
    if key.startswith("devices"):
        return f"devices is {error['input']!r}: allowed are a number from 1 to 4096, or all"
    if key.startswith("weights"):
        return (
            f"weights is {error['input']!r}: allowed are {', '.join(get_args(Weights))}, "
            "or one of them for each network"
        )
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "string_pattern_mismatch" and "x00" in error["ctx"]["pattern"]:
        return f"{key} is {error['input']!r}: control characters are not allowed"
    if error["type"] == "string_pattern_mismatch":
        return f"{key}: a name has lower-case letters, digits, _ and -, at most 41"
    return f"{key} is {error['input']!r}: {error['msg'].replace('Input', 'it', 1)}"
