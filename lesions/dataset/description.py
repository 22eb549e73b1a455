"""The description of a dataset: its classes, groups and words, one YAML file in datasets/.

`datasets/README.md` explains every key. The description is read once, in a stage's script, and
passed on; every model file carries it, so that a model explains itself anywhere.
"""

import colorsys
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lesions.common.errors import LesionsError
from lesions.common.params import Name
from lesions.common.types import Labels
from lesions.common.yaml_files import check_values, key_of, read_yaml

FOLDER = Path("datasets")
NOT_STATED = "not stated"
# Of Okabe and Ito, which colour-blind people can read; more classes get evenly spread hues.
PALETTE = (
    *("#e69f00", "#56b4e9", "#009e73", "#d55e00"),
    *("#0072b2", "#cc79a7", "#f0e442", "#000000"),
)
# Columns of predictions.csv, of other results and of `lesions predict --csv`, which stand next to
# those of the classes and groups.
RESERVED = {
    *("image_id", "lesion_id", "patient_id", "actual", "predicted", "confidence", "model", "row"),
    *("photo", "refer", "low_confidence", "out_of_distribution", "dx", "group", "first", "second"),
    *("metric", "measure", "title", "decision"),
}

Words = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
# A class is a column of tables, part of addresses and of file names.
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Role = Literal[
    "image",
    "label",
    "lesion",
    "patient",
    "split",
    "age",
    "sex",
    "site",
    "confirmed_by",
    "collection",
]
ROLES: tuple[Role, ...] = get_args(Role)


class ClassEntry(NamedTuple):
    """One class, as pages show it."""

    code: str
    title: str
    colour: str


class Description(BaseModel):
    """What a dataset is; `datasets/README.md` says what each key means."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    title: Words
    classes: Annotated[tuple[Code, ...], Field(min_length=2, max_length=1000)]
    groups: dict[Name, Annotated[tuple[Code, ...], Field(min_length=1)]]
    watched: Name | None
    columns: dict[Role, Words] = {}
    left_out: tuple[Words, ...] = ()
    titles: dict[Code, Words] = {}
    colours: dict[Code, Colour] = {}
    photo: Words = "photo"
    origin: Words = NOT_STATED
    licence: Words = NOT_STATED
    citation: Words = NOT_STATED
    limits: Words = NOT_STATED

    @field_validator("photo")
    @classmethod
    def _check_photo(cls, photo: str) -> str:
        if len(photo) > 60:
            raise ValueError("photo is too long: one or two words for one image are expected")
        return photo

    @model_validator(mode="after")
    def _check_classes(self) -> "Description":
        names: dict[str, str] = {}
        for code in self.classes:
            for name in {code, self.titles.get(code, code)}:
                key = normalise(name)
                if not key or names.setdefault(key, code) != code:
                    raise ValueError(
                        f"classes has {names.get(key, code)!r} and {code!r}, whose names differ "
                        "only in case, spaces or signs: give them different names"
                    )
            if code.casefold() in RESERVED:
                raise ValueError(
                    f"classes has {code!r}, which is a column of the results: choose another name"
                )
        for key in ("titles", "colours"):
            if unknown := [code for code in getattr(self, key) if code not in self.classes]:
                raise ValueError(f"{key} names {unknown[0]!r}; classes has {self._known()}")
        if clash := [label for label in self.left_out if self.class_of(label)]:
            raise ValueError(f"left_out names {clash[0]!r}, which is also a class: decide")
        return self

    @model_validator(mode="after")
    def _check_groups(self) -> "Description":
        for group, codes in self.groups.items():
            if unknown := [code for code in codes if code not in self.classes]:
                raise ValueError(
                    f"groups.{group} names {unknown[0]!r}; classes has {self._known()}"
                )
            if len(set(codes)) in (0, len(self.classes)) or len(set(codes)) < len(codes):
                raise ValueError(
                    f"groups.{group} has every class, or one twice: a group is some of the classes"
                )
            is_class = group in self.classes and codes != (group,)
            if group == "roc" or group in RESERVED or is_class:
                raise ValueError(
                    f"groups.{group} has the name of a metric, of a class or of a column of the "
                    "results: choose another"
                )
        if self.watched is not None and self.watched not in self.groups:
            known = ", ".join(self.groups) or "none"
            raise ValueError(
                f"watched is {self.watched!r}, which is not a group; groups has {known}. "
                "`watched: null` watches none"
            )
        return self

    def _known(self) -> str:
        return ", ".join(self.classes[:12]) + (", ..." if len(self.classes) > 12 else "")

    @property
    def entries(self) -> tuple[ClassEntry, ...]:
        """The classes with their titles and colours, in order."""
        colours = _palette(len(self.classes))
        return tuple(
            ClassEntry(code, self.titles.get(code, code), self.colours.get(code, colour))
            for code, colour in zip(self.classes, colours, strict=True)
        )

    @property
    def meaning(self) -> dict[str, str]:
        """The title of each class."""
        return {entry.code: entry.title for entry in self.entries}

    @property
    def photos(self) -> str:
        """The word for several images."""
        return f"{self.photo}s"

    @property
    def sums(self) -> dict[str, list[int]]:
        """The groups of several classes, whose probabilities are added up."""
        return {group: self.indices(group) for group, codes in self.groups.items() if codes[1:]}

    def indices(self, group: str) -> list[int]:
        """List the class indices of a group."""
        return [self.classes.index(code) for code in self.groups[group]]

    def members(self, group: str) -> str:
        """Name the classes of a group by their titles."""
        titles = [self.meaning[code] for code in self.groups[group]]
        return " and ".join([", ".join(titles[:-1]), titles[-1]]) if titles[1:] else titles[0]

    def class_of(self, label: str) -> str | None:
        """Find the class that a table or folder means, whatever its case, spaces and signs."""
        wanted = normalise(label)
        for code in self.classes:
            if wanted in (normalise(code), normalise(self.titles.get(code, code))):
                return code
        return None

    def labels_of(self, classes: "Iterable[str] | pd.Series[str]") -> Labels:
        """Turn classes into their indices: (n,) int64.

        Raises:
            LesionsError: one is not a class of the dataset.
        """
        index = {code: number for number, code in enumerate(self.classes)}
        if unknown := sorted(set(classes) - set(index)):
            raise LesionsError(
                f"{unknown[0]!r} is not a class of {self.title}, which has {self._known()}. "
                "`dvc repro` makes the tables and models of one dataset."
            )
        return np.array([index[code] for code in classes], dtype=np.int64)


def normalise(label: str) -> str:
    """Write a label so that case, spaces and signs make no difference, but for those of numbers.

    >>> normalise("Basal-Cell  Carcinoma")
    'basal cell carcinoma'
    >>> normalise("HER2+"), normalise("HER2-"), normalise("-1"), normalise("<5")
    ('her2+', 'her2-', '-1', '<5')
    """
    return re.sub(r"(?:(?![+<>≤≥]|(?<!\S)-(?=\d)|(?<=\S)-$)[\W_])+", " ", label.casefold()).strip()


def _palette(count: int) -> list[str]:
    """List colours for `count` classes."""
    more = [
        "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hsv_to_rgb(hue, 0.6, 0.75))
        for hue in np.arange(max(0, count - len(PALETTE))) * 0.618 % 1
    ]
    return [*PALETTE, *more][:count]


def load_description(name: str) -> Description:
    """Read a description; `name` is the parameter `dataset`.

    Raises:
        LesionsError: names the file, every wrong key, the value found and what is allowed.
    """
    path = Path(name)
    if not path.is_file():
        known = ", ".join(str(file) for file in sorted(FOLDER.glob("*.yaml"))) or "none"
        raise LesionsError(
            f"dataset: {path}: not found; here are {known}. `lesions new FOLDER` writes one."
        )
    return read_yaml(path, Description, "datasets/README.md explains every key.", _explain)


def check_description(place: Path, values: dict[str, Any]) -> Description:
    """Check the keys of a description; `place` is named in errors.

    Raises:
        LesionsError: as `load_description`.
    """
    return check_values(place, values, Description, _explain)


def _explain(error: dict[str, Any]) -> str | None:
    """Say what is wrong with a key, where pydantic's own words are hard to understand."""
    key = key_of(error)
    if error["type"] == "missing":
        empty = {"groups": "{}", "watched": "null"}
        return f"key {key!r} is missing" + (
            f"; write `{key}: {empty[key]}` if there is none" if key in empty else ""
        )
    if error["type"] == "literal_error" and key.startswith("columns"):
        return f"columns names {error['input']!r}; allowed are {', '.join(ROLES)}"
    if error["type"] == "string_pattern_mismatch" and "A-Za-z0-9_-" in error["ctx"]["pattern"]:
        return (
            f"{key} is {error['input']!r}: a class is named by letters, digits, _ and -, at most "
            "40; `titles` has its words, in which every character is allowed"
        )
    if error["type"] == "string_pattern_mismatch" and "a-z0-9_-" in error["ctx"]["pattern"]:
        return f"{key} is {error['input']!r}: lower-case letters, digits, _ and - are allowed"
    if error["type"] == "string_pattern_mismatch" and "#" in error["ctx"]["pattern"]:
        return f"{key} is {error['input']!r}: a colour is written like '#0072b2'"
    return None
