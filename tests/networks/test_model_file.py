from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers import FP32, PARAMS, SUBSPACE, card_of, classifier_of, network_of
from safetensors.torch import save_file

from lesions.common.errors import LesionsError
from lesions.dataset.description import Description
from lesions.networks import model_file
from lesions.networks.architectures import build
from lesions.scoring.fitted import Fitted


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mobilenetv2.safetensors"
    model_file.save(path, network_of("mobilenetv2").state_dict(), SUBSPACE, card_of())
    return path


def test_a_file_gives_back_the_same_model(file: Path) -> None:
    original, read = classifier_of(), model_file.load(file, FP32)
    photos = torch.rand(3, 3, 32, 32)
    assert torch.equal(read.classifier.logits(photos.clone()), original.logits(photos.clone()))
    assert read.classifier.card == card_of()
    np.testing.assert_array_equal(read.subspace, SUBSPACE)


def test_same_content_same_bytes(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "other.safetensors"
    model_file.save(other, network_of("mobilenetv2").state_dict(), SUBSPACE, card_of())
    assert other.read_bytes() == file.read_bytes()


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match=r"not found\. `dvc repro` trains it"):
        model_file.load(tmp_path / "resnet50.safetensors", FP32)


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_truncated_model(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(LesionsError, match=r"mobilenetv2\.safetensors: not a whole model"):
        model_file.load(file, FP32)


def test_altered_model(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(LesionsError, match=r"mobilenetv2\.safetensors: .*checksum: damaged or alt"):
        model_file.load(file, FP32)


def test_another_network_than_expected(file: Path) -> None:
    assert model_file.load(file, FP32, "mobilenetv2").classifier.card == card_of()
    with pytest.raises(LesionsError, match="holds mobilenetv2, not resnet50"):
        model_file.load(file, FP32, "resnet50")


def test_a_file_of_another_format_names_both(file: Path) -> None:
    state = network_of("mobilenetv2").state_dict()
    model_file.save(file, state, SUBSPACE, card_of(format=1))
    with pytest.raises(LesionsError, match="a model file of format 1; this version reads format 5"):
        model_file.load(file, FP32)


def test_models_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(LesionsError, match="of another program"):
        model_file.load(path, FP32)
    save_file({"a": torch.zeros(1)}, path, metadata={"lesions": "[" * 9})
    with pytest.raises(LesionsError, match="its metadata is damaged"):
        model_file.load(path, FP32)
    state = network_of("mobilenetv2").state_dict()
    model_file.save(path, state, SUBSPACE, card_of().model_copy(update={"fitted": ()}))
    with pytest.raises(LesionsError, match="its training was not finished"):
        model_file.load(path, FP32)
    model_file.save(path, state, SUBSPACE, card_of("resnet50"))
    with pytest.raises(LesionsError, match="do not fit ResNet50"):
        model_file.load(path, FP32)


def test_a_model_of_any_classes_explains_itself(tmp_path: Path) -> None:
    animals = Description(title="Animals", classes=("cat", "dog"), groups={}, watched=None)
    path = tmp_path / "x.safetensors"
    network = build(PARAMS.networks["mobilenetv2"], 2, "random", 0)
    card = card_of(dataset=animals, bias=(0.0, 0.0), prevalence=(0.5, 0.5))
    model_file.save(path, network.state_dict(), SUBSPACE, card)
    assert model_file.load(path, FP32).classifier.card.dataset == animals


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("image_size", 1),
        ("image_size", 20_000),
        ("mean", (1e308, 0.5, 0.5)),
        ("std", (0.1, 0.0, 0.1)),
        ("confidence_threshold", float("nan")),
        ("distance_threshold", -1.0),
        ("recipe", {"augment": {}}),
        ("recipe", {"source": "sample"}),
        ("name", "a\x1b[31m"),
    ],
)
def test_values_that_make_no_sense_are_refused(file: Path, field: str, value: object) -> None:
    state, card = network_of("mobilenetv2").state_dict(), card_of()
    if field in Fitted.model_fields:
        wrong = card.use(4).model_copy(update={field: value})
        card = card.model_copy(update={"fitted": (card.use(1), wrong)})
        field = rf"fitted\.1\.{field}"
    else:
        card = card.model_copy(update={field: value})
    model_file.save(file, state, SUBSPACE, card)
    with pytest.raises(LesionsError, match=rf"mobilenetv2\.safetensors: card\.{field}"):
        model_file.load(file, FP32)


def test_weights_that_are_not_finite_and_a_subspace_of_another_width_are_refused(
    file: Path,
) -> None:
    state = network_of("mobilenetv2").state_dict()
    model_file.save(file, state, SUBSPACE[:, :3].copy(), card_of())
    with pytest.raises(LesionsError, match=r"shape \(3, 3\), but MobileNetV2 has 1280 features"):
        model_file.load(file, FP32)
    model_file.save(file, state, SUBSPACE[:0].copy(), card_of())
    with pytest.raises(LesionsError, match=r"subspace has shape \(0, 1280\)"):
        model_file.load(file, FP32)
    state["classifier.1.bias"][2] = torch.nan
    model_file.save(file, state, SUBSPACE, card_of())
    with pytest.raises(LesionsError, match="weights that are not finite"):
        model_file.load(file, FP32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {**state, "classifier.1.bias": state["classifier.1.bias"].bfloat16()}, ""),
        (lambda state: {**state, "classifier.1.bias": torch.zeros(7, dtype=torch.int64)}, "fit"),
        (lambda state: {**state, "more": torch.zeros(1)}, "the first is more"),
        (lambda state: {**state, "classifier.1.bias": torch.zeros(8)}, "2 differ"),
    ],
)
def test_tensors_of_other_types_and_shapes_are_refused(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    words: str,
) -> None:
    state = change(network_of("mobilenetv2").state_dict())
    if not words:  # numpy has no such type, so no hash could be computed
        words = "classifier.1.bias has the type torch.bfloat16"
        monkeypatch.setattr(model_file, "_digest", lambda *_: "0" * 64)
    model_file.save(file, state, SUBSPACE, card_of())
    with pytest.raises(LesionsError, match=words):
        model_file.load(file, FP32)


@pytest.mark.parametrize("name", ["fcn_resnet50", "vit_h_14"])
def test_no_network_is_built_or_downloaded_for_a_file_that_is_not_whole(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    built: list[object] = []
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: built.append(1))
    spec = PARAMS.networks["mobilenetv2"].model_copy(update={"torchvision": name})
    state = {"a": torch.zeros(3)}
    model_file.save(file, state, SUBSPACE, card_of(network=spec))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(LesionsError, match="does not match its checksum"):
        model_file.load(file, FP32)
    assert not built
    if name == "fcn_resnet50":  # not even for a file that is whole
        model_file.save(file, state, SUBSPACE, card_of(network=spec))
        with pytest.raises(LesionsError, match="not a classifier of photos"):
            model_file.load(file, FP32)
        assert not built
