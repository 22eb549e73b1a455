"""The parameters: params.yaml, checked as a whole before any stage starts."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lesions.common import layout
from lesions.common.errors import LesionsError
from lesions.common.yaml_files import check_values, key_of, read_yaml

Share = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
# Titles stand in pages, tables and plots: nothing that one of them would run or misread.
Title = Annotated[str, Field(pattern=r"^[\p{L}\p{N}][\p{L}\p{N} _.,+-]{0,59}$")]
# Names become parts of file and stage names, and of metrics.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]
StartingWeights = Literal["imagenet", "random"]
Weights = Literal["auto", "imagenet", "random"]
Decision = Literal["most-probable", "balanced"]
Views = Literal[1, 4]  # as it is; with its three mirror images
Holdout = Literal["once-photographed", "any-lesion", "any-photo", "given"]
# Names of folders and files in metrics/ and plots/, and those that Windows keeps for devices.
TAKEN = {"val", "test", "baseline", "ensemble", "con", "prn", "aux", "nul"}
TAKEN |= {f"{device}{number}" for device in ("com", "lpt") for number in range(10)}
SYNTHETIC = ("sample", "teaching")  # the sources that the project makes itself
ENSEMBLE_TITLE = "mean of all networks"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Augment(_Strict):
    """Largest random change of a training photo; params.yaml explains the units."""

    horizontal_flip: Probability
    vertical_flip: Probability
    rotation: Annotated[float, Field(ge=0, le=180)]
    brightness: Probability
    contrast: Probability
    saturation: Probability
    hue: Annotated[float, Field(ge=0, le=0.5)]


class NetworkSpec(_Strict):
    """One entry of the table of networks."""

    title: Title  # in tables and plots
    torchvision: Text  # torchvision.models.get_model knows it by this name
    features: Text  # the submodule that makes the last feature map
    fit: Literal["all", "last-layer"] = "all"  # the layers that are trained


class Recipe(_Strict):
    """How a network was trained: stored in its model file."""

    source: Text
    lr: Annotated[float, Field(gt=0, le=1)]
    schedule: Literal["constant", "cosine"]
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    epochs: Annotated[int, Field(ge=1, le=10000)]
    keep: Literal["best", "last"]
    head: Literal["trained", "refitted"]
    augment: Augment
    shortcut: Probability

    @property
    def synthetic(self) -> bool:
        """Whether the photos are those of a synthetic sample."""
        return self.source in SYNTHETIC


class TrainingParams(Recipe):
    """All that a training stage reads, besides the network's own entry and the dataset."""

    weights: Weights | dict[Name, Weights]
    seed: Seed
    precision: Literal["auto", "bf16", "fp16", "tf32", "fp32"]
    device: Literal["auto", "cuda", "mps", "cpu"]
    devices: Annotated[int, Field(ge=1, le=4096)] | Literal["all"]
    deterministic: bool


class Params(TrainingParams):
    """The content of params.yaml, whose comments say what each value does."""

    dataset: Text
    sample_seed: Seed
    sample_size: Annotated[int, Field(ge=200, le=100_000)]
    external_tests: dict[Name, Text]
    image_size: Annotated[int, Field(ge=32, le=1024)]
    split_seed: Seed
    val_share: Share
    test_share: Share
    same_lesion: Text
    leave_out: Text
    holdout: Holdout
    balance: Literal["multiply", "sqrt", "none"]
    networks: Annotated[dict[Name, NetworkSpec], Field(min_length=1)]
    decision: Decision
    views: Views
    ensemble: bool

    @model_validator(mode="after")
    def _check_shares(self) -> "Params":
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share {self.val_share} and test_share {self.test_share} leave no training "
                "set: their sum must be below 1"
            )
        return self

    @model_validator(mode="after")
    def _check_names(self) -> "Params":
        if isinstance(self.weights, dict) and (unknown := set(self.weights) - set(self.networks)):
            raise ValueError(
                f"weights names the network {min(unknown)!r}; known are {', '.join(self.networks)}"
            )
        for key, names, taken in (
            ("networks", self.networks, TAKEN),
            ("external_tests", self.external_tests, TAKEN | set(self.networks)),
        ):
            if used := set(names) & taken:
                raise ValueError(
                    f"{key} uses the name {min(used)!r}, which metrics/, plots/ or Windows use "
                    "already: choose another name"
                )
        titles = [network.title.casefold() for network in self.networks.values()]
        titles += [ENSEMBLE_TITLE, "baseline"]
        if twice := [title for title in titles if titles.count(title) > 1]:
            raise ValueError(f"networks has the title {twice[0]!r}, which is taken: choose another")
        return self

    @model_validator(mode="after")
    def _check_sources(self) -> "Params":
        for key, source in {"source": self.source, **self.external_tests}.items():
            folder = Path(os.path.realpath(os.path.expanduser(source)))  # noqa: PTH111
            own = next((o for o in layout.OUTPUTS if folder.is_relative_to(o.resolve())), None)
            if own is not None:
                raise ValueError(
                    f"{key} is {source!r}, in {own}/, which the pipeline writes: your photos would "
                    "be lost. Move them to another folder"
                )
        return self

    def network(self, model: str) -> NetworkSpec:
        """Find a network in the table.

        Raises:
            LesionsError: it is not there.
        """
        if model not in self.networks:
            raise LesionsError(
                f"model {model!r} is unknown; `networks` in {layout.PARAMS} has "
                f"{', '.join(self.networks)}."
            )
        return self.networks[model]

    def external_test(self, name: str) -> str:
        """Find the source of an external test set.

        Raises:
            LesionsError: it is not in the table.
        """
        if name not in self.external_tests:
            known = ", ".join(self.external_tests) or "none"
            raise LesionsError(f"external test {name!r} is unknown; {layout.PARAMS} has {known}.")
        return self.external_tests[name]

    def starting_weights(self, model: str) -> StartingWeights:
        """Say what the training of `model` starts from."""
        chosen = self.weights if isinstance(self.weights, str) else self.weights.get(model, "auto")
        if chosen == "auto":
            return "random" if self.synthetic else "imagenet"
        return chosen

    def recipe(self) -> Recipe:
        """Take the part that a model file stores."""
        return Recipe(**{name: getattr(self, name) for name in Recipe.model_fields})


def load_params(path: Path = layout.PARAMS) -> Params:
    """Read and check all parameters.

    Raises:
        LesionsError: names every wrong key, the value found and what is allowed.
    """
    missing = "Run from the project's root, where the file is."
    return read_yaml(path, Params, missing, _explain)


def check_params(values: dict[str, Any], path: Path = layout.PARAMS) -> Params:
    """Check values as `load_params` does."""
    return check_values(path, values, Params, _explain)


def _explain(error: dict[str, Any]) -> str | None:
    """Say what is wrong with a key, where pydantic's own words are hard to understand."""
    key = key_of(error)
    if error["type"] == "extra_forbidden" and "." in key:
        groups: dict[str, type[BaseModel]] = {"augment": Augment, "networks": NetworkSpec}
        known = groups.get(key.partition(".")[0], Params).model_fields
        return f"unknown key {key!r}; known here: {', '.join(known)}"
    if error["type"] == "missing":
        return f"key {key!r} is missing; copy its line from the published params.yaml"
    # pydantic explains each form that these two may take; one line is enough.
    if key.startswith("devices"):
        value = error["input"]
        return f"devices is {value!r}: allowed are a number from 1 to 4096, or all"
    if key.startswith("weights"):
        return (
            f"weights is {error['input']!r}: allowed are {', '.join(get_args(Weights))}, "
            "or one of them for each network"
        )
    if error["type"] == "string_pattern_mismatch" and key.endswith(".title"):
        return (
            f"{key} is {error['input']!r}: a title has letters, digits, spaces and _ . , + -, at "
            "most 60, and begins with a letter or digit"
        )
    if error["type"] == "string_pattern_mismatch" and "x00" not in error["ctx"]["pattern"]:
        return f"{key}: a name has lower-case letters, digits, _ and -, at most 41"
    return None
