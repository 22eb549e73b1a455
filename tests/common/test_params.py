from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import load_yaml
from helpers import PUBLISHED, ROOT, change_params
from ruamel.yaml import YAML

from lesions.common.errors import LesionsError
from lesions.common.params import Params, load_params

NETWORK = {"title": "Net", "torchvision": "resnet18", "features": "layer4"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(PUBLISHED, sort_keys=False))
    return path


def test_the_file_has_every_parameter() -> None:
    assert set(load_params(ROOT / "params.yaml").model_dump()) == set(PUBLISHED)


def test_every_value_has_a_comment_or_follows_one() -> None:
    lines = (ROOT / "params.yaml").read_text().splitlines()
    commented = sum(line.lstrip().startswith("#") for line in lines)
    assert commented >= len(Params.model_fields)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0}, ["lr", "0", "greater than 0"]),
        ({"lr": "fast"}, ["lr", "'fast'", "number"]),
        ({"epochs": 0}, ["epochs", "greater than or equal to 1"]),
        ({"epochs": 1.5}, ["epochs", "1.5"]),
        ({"image_size": 31}, ["image_size", "31", "32"]),
        ({"batch_size": 1}, ["batch_size", "2"]),
        ({"val_share": 0.5, "test_share": 0.5}, ["val_share 0.5", "test_share 0.5", "below 1"]),
        ({"holdout": "any"}, ["holdout", "'any'", "'any-lesion'"]),
        ({"learning_rate": 0.1}, ["unknown key 'learning_rate'", "lr"]),
        ({"augment": {"rotation": 20}}, ["augment.hue", "missing"]),
        ({"device": None}, ["device", "None", "'cuda'"]),
        ({"lr": float("nan")}, ["lr", "nan"]),
        ({"lr": float("inf")}, ["lr", "inf"]),
        ({"weights": "best"}, ["weights is 'best'", "imagenet, random"]),
        ({"devices": 0}, ["devices is 0: allowed are a number from 1 to 4096, or all"]),
        ({"weights": {"vgg": "auto"}}, ["network 'vgg'", "resnet50, mobilenetv2"]),
        ({"weights": {"resnet50": "x"}}, ["weights is {'resnet50': 'x'}"]),
        ({"networks": {}}, ["networks", "at least 1"]),
        ({"networks": {"a/b": {}}}, ["networks.a/b", "a name has lower-case letters"]),
        ({"networks": {"a": {"title": "A"}}}, ["networks.a.torchvision", "missing"]),
        ({"networks": {"a": {"lr": 1}}}, ["unknown key 'networks.a.lr'", "features"]),
        ({"networks": {"val": NETWORK}}, ["networks uses the name 'val'"]),
        ({"networks": {"a": NETWORK, "b": NETWORK}}, ["the title 'net', which is taken"]),
        ({"networks": {"con": NETWORK}}, ["networks uses the name 'con'", "Windows"]),
        (
            {"networks": {"a": {**NETWORK, "title": "</script><script>x"}}},
            ["networks.a.title is '</script><script>x': a title has letters"],
        ),
        ({"networks": {"a": {**NETWORK, "title": "=1+1"}}}, ["begins with a letter or digit"]),
        ({"networks": {"a": {**NETWORK, "title": "Mean of all networks"}}}, ["which is taken"]),
        ({"external_tests": {"a;touch PWNED": "x"}}, ["a name has lower-case letters"]),
        ({"external_tests": {"test": "x"}}, ["'test'", "choose another name"]),
        ({"external_tests": {"resnet50": "x"}}, ["'resnet50'", "choose another name"]),
        ({"source": "data/raw"}, ["source is 'data/raw'", "your photos would be lost"]),
        ({"source": "data/raw/../raw/deep"}, ["your photos would be lost"]),
        ({"source": "a\0b"}, ["source is", "control characters are not allowed"]),
        ({"source": "metrics"}, ["your photos would be lost"]),
        ({"external_tests": {"a": "models"}}, ["a is 'models'", "another folder"]),
        ({"external_tests": "isic2018"}, ["external_tests is 'isic2018'"]),
        ({"deterministic": "yes"}, ["deterministic", "'yes'"]),
    ],
)
def test_wrong_values_are_named(file: Path, changes: dict[str, object], words: list[str]) -> None:
    change_params(file, **changes)
    with pytest.raises(LesionsError) as error:
        load_params(file)
    for word in [str(file), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "a: 1\na: 2", "a: \x00", "1"])
def test_a_file_without_keys(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(LesionsError, match=r"params\.yaml"):
        load_params(file)


def test_scientific_notation_is_a_number(file: Path) -> None:
    file.write_text(file.read_text().replace("lr: 0.001", "lr: 3e-4"))
    assert load_params(file).lr == 3e-4


EDGES = [
    *("010", "0o10", "0x1F", "0b11", "1_000", "1:30", "+1", "1.", ".5", "1e3", "1e-3", ".inf"),
    *("yes", "on", "true", "True", "~", "null", "''", "2001-01-01", "'1'", "[1, 2]"),
]


@pytest.mark.parametrize("text", EDGES)
def test_values_are_read_as_dvc_reads_them(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"a: {text}\n")
    ours, theirs = YAML(typ="safe").load(path.read_text())["a"], load_yaml(str(path))["a"]
    assert (type(ours), str(ours)) == (type(theirs), str(theirs))


def test_values_of_yaml_1_1_are_not_misread(file: Path) -> None:
    text = file.read_text()
    file.write_text(text.replace("\nseed: 0", "\nseed: 010"))
    assert load_params(file).seed == 10  # not octal
    file.write_text(text.replace("deterministic: true", "deterministic: yes"))
    with pytest.raises(LesionsError, match="deterministic is 'yes'"):
        load_params(file)


def test_entries_of_the_tables_are_found_or_named(params: Params) -> None:
    assert params.network("resnet50").title == "ResNet50"
    with pytest.raises(LesionsError, match=r"model 'vgg' is unknown.*resnet50, mobilenetv2"):
        params.network("vgg")
    with pytest.raises(LesionsError, match=r"external test 'x' is unknown; params.yaml has none"):
        params.external_test("x")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match="project's root"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("source", "weights", "expected"),
    [
        ("sample", "auto", "random"),
        ("dataverse", "auto", "imagenet"),
        ("some/folder", "auto", "imagenet"),
        ("sample", "imagenet", "imagenet"),
        ("kaggle", {"resnet50": "random"}, "random"),
        ("kaggle", {"mobilenetv2": "random"}, "imagenet"),
    ],
)
def test_starting_weights(params: Params, source: str, weights: object, expected: str) -> None:
    changed = params.model_copy(update={"source": source, "weights": weights})
    assert changed.starting_weights("resnet50") == expected
