import shutil
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from lesions.common.errors import LesionsError
from lesions.common.params import NetworkSpec, load_params
from lesions.curation.network_table import add_network, remove_network

SPEC = NetworkSpec(title="EfficientNet-B0", torchvision="efficientnet_b0", features="features")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_network_has_all_blocks_that_the_others_have(place: Path) -> None:
    add_network("efficientnet_b0", SPEC)
    assert load_params().networks["efficientnet_b0"] == SPEC
    text = (place / "dvc.yaml").read_text()
    assert text.count("efficientnet_b0") == text.count("mobilenetv2")
    assert text.count("EfficientNet-B0") == text.count("MobileNetV2")
    pipeline = yaml.safe_load(text)
    stage = pipeline["stages"]["train-efficientnet_b0"]
    assert stage["outs"] == [
        "models/efficientnet_b0.safetensors",
        "models/efficientnet_b0.validation.csv",
    ]
    assert stage["params"][0] == "networks.efficientnet_b0"
    assert "models/efficientnet_b0.safetensors" in pipeline["stages"]["evaluate"]["deps"]
    external = pipeline["stages"]["evaluate-external"]["do"]
    assert "models/efficientnet_b0.safetensors" in external["deps"]
    assert pipeline["artifacts"]["efficientnet_b0"]["path"] == stage["outs"][0]
    curves = next(plot for plot in pipeline["plots"] if "Loss" in plot)["Loss"]["y"]
    assert "plots/efficientnet_b0/history.csv" in curves


def test_taking_it_out_again_leaves_the_files_as_they_were(place: Path) -> None:
    before = {name: (place / name).read_text() for name in ("params.yaml", "dvc.yaml")}
    add_network("efficientnet_b0", SPEC)
    add_network("convnext_tiny", SPEC.model_copy(update={"title": "ConvNeXt"}))
    remove_network("efficientnet_b0")
    remove_network("convnext_tiny")
    assert {name: (place / name).read_text() for name in before} == before


def test_what_cannot_be_done_is_refused_and_nothing_is_written(place: Path) -> None:
    before = {name: (place / name).read_text() for name in ("params.yaml", "dvc.yaml")}
    with pytest.raises(LesionsError, match="has it already"):
        add_network("mobilenetv2", SPEC)
    with pytest.raises(LesionsError, match="the title 'resnet50', which is taken"):
        add_network("other", SPEC.model_copy(update={"title": "ResNet50"}))
    with pytest.raises(LesionsError, match="a name has lower-case letters"):
        add_network("Other Net", SPEC)
    with pytest.raises(LesionsError, match="model 'vgg' is unknown"):
        remove_network("vgg")
    assert {name: (place / name).read_text() for name in before} == before


def test_blocks_that_others_refer_to_become_those_of_the_next_network(place: Path) -> None:
    before = yaml.safe_load((place / "dvc.yaml").read_text())
    remove_network("resnet50")
    text = (place / "dvc.yaml").read_text()
    assert "resnet50" not in text.lower()
    assert list(load_params().networks) == ["mobilenetv2"]
    after = yaml.safe_load(text)
    old, new = (one["stages"].pop("train-mobilenetv2") for one in (before, after))
    assert {**old, "desc": ""} == {**new, "desc": ""}
    assert list(after["stages"]) == [name for name in before["stages"] if "resnet50" not in name]
    assert "models/mobilenetv2.safetensors" in after["stages"]["evaluate"]["deps"]
    assert "mobilenetv2" in after["artifacts"]


def test_titles_of_all_languages_and_files_written_by_hand(place: Path) -> None:
    for number, title in enumerate(("Réseau 18+", "网络, mine")):
        add_network(f"net{number}", SPEC.model_copy(update={"title": title}))
        assert load_params().networks[f"net{number}"].title == title
        remove_network(f"net{number}")
    params = place / "params.yaml"
    params.write_text(params.read_text().replace("  mobilenetv2:\n", "  mobilenetv2:  # small\n"))
    remove_network("mobilenetv2")
    assert list(load_params().networks) == ["resnet50"]


def test_a_last_layer_baseline_is_an_entry_of_its_own(place: Path) -> None:
    add_network("resnet18-last-layer", SPEC.model_copy(update={"fit": "last-layer"}))
    networks = load_params().networks
    assert networks["resnet18-last-layer"].fit == "last-layer"
    assert networks["mobilenetv2"].fit == "all"
    assert (place / "params.yaml").read_text().count("\n    fit:") == 1
