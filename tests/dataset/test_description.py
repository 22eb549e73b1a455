from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import DATASET, ROOT

from lesions.common.errors import LesionsError
from lesions.dataset.description import Description, load_description

PLAIN: dict[str, Any] = {"title": "t", "classes": ["a", "b", "c"], "groups": {}, "watched": None}


def written(folder: Path, **changes: Any) -> str:
    path = folder / "mine.yaml"
    values = {key: value for key, value in {**PLAIN, **changes}.items() if value != "absent"}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(path)


def test_what_is_not_stated_is_said_so(tmp_path: Path) -> None:
    found = load_description(written(tmp_path))
    assert {found.origin, found.licence, found.citation, found.limits} == {"not stated"}
    assert (found.photo, found.photos) == ("photo", "photos")
    assert [entry.title for entry in found.entries] == ["a", "b", "c"]


@pytest.mark.parametrize("count", [2, 40, 300])
def test_any_number_of_classes_have_colours_of_their_own(tmp_path: Path, count: int) -> None:
    found = load_description(written(tmp_path, classes=[f"c{k}" for k in range(count)]))
    colours = [entry.colour for entry in found.entries]
    assert len(set(colours[:40])) == min(count, 40)
    assert found.labels_of(["c1", "c0"]).tolist() == [1, 0]


def test_numbers_are_classes_too(tmp_path: Path) -> None:
    found = load_description(written(tmp_path, classes=[0, 1], groups={"bad": [1]}))
    assert found.classes == ("0", "1")
    assert found.class_of("1") == "1"


def test_labels_are_recognised_in_any_spelling() -> None:
    assert DATASET.class_of("MEL") == "mel"
    assert DATASET.class_of("Basal-Cell_carcinoma ") == "bcc"
    assert DATASET.class_of("wart") is None


def test_groups_add_up_and_name_their_members() -> None:
    assert DATASET.indices("malignant") == [0, 1, 4]
    assert DATASET.sums == {"malignant": [0, 1, 4]}
    assert DATASET.members("malignant") == (
        "actinic keratosis / intraepithelial carcinoma, basal cell carcinoma and melanoma"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ["a"]}, "classes is"),
        ({"classes": ["a", "A"]}, "whose names differ only in case"),
        ({"classes": ["a b", "c"]}, "a class is named by letters, digits, _ and -"),
        ({"classes": ["actual", "b"]}, "'actual', which is a column of the results"),
        ({"titles": {"x": "X"}}, "titles names 'x'; classes has a, b, c"),
        ({"titles": {"a": "\x1b[31m"}}, "control characters are not allowed"),
        ({"colours": {"a": "red"}}, "a colour is written like '#0072b2'"),
        ({"groups": "absent"}, "key 'groups' is missing; write `groups: {}` if there is none"),
        ({"watched": "absent"}, "key 'watched' is missing; write `watched: null`"),
        ({"groups": {"g": ["x"]}}, "groups.g names 'x'; classes has a, b, c"),
        ({"groups": {"g": ["a", "b", "c"]}}, "a group is some of the classes"),
        ({"groups": {"roc": ["a"]}}, "has the name of a metric, of a class or of a column"),
        ({"groups": {"a": ["b"]}}, "has the name of a metric, of a class or of a column"),
        ({"groups": {"refer": ["b"]}}, "has the name of a metric, of a class or of a column"),
        ({"groups": {"Bad": ["b"]}}, "lower-case letters"),
        ({"watched": "g"}, "watched is 'g', which is not a group; groups has none"),
        ({"columns": {"weight": "w"}}, "columns names 'weight'; allowed are image, label"),
        ({"left_out": ["B"]}, "left_out names 'B', which is also a class"),
        ({"colour": {}}, "unknown key 'colour'; known here: title, classes"),
        ({"photo": "x" * 61}, "photo is too long"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(LesionsError) as error:
        load_description(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)


def test_a_missing_file_names_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(LesionsError, match=r"not found; here are .*datasets/ham10000\.yaml"):
        load_description("datasets/mine.yaml")


def test_a_description_survives_a_model_file() -> None:
    assert Description.model_validate_json(DATASET.model_dump_json()) == DATASET
