import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from lesions import networks
from lesions.diagnoses import CODES
from lesions.errors import LesionsError

SUBSPACE = np.eye(1280, dtype=np.float32)[:3]  # a mean and two directions
CPU = torch.device("cpu")


def card(**changes: object) -> networks.ModelCard:
    values = {
        "architecture": "mobilenetv2",
        "classes": CODES,
        "image_size": 32,
        "mean": (0.7, 0.5, 0.5),
        "std": (0.1, 0.2, 0.2),
        "temperature": 2.0,
        "doubt": 0.3,
        "strange": 0.5,
        "weights": "random",
        "seed": 0,
        "recipe": {"source": "sample", "lr": 0.001},
        "observations": dict.fromkeys(CODES, 9),
        "precision": "fp32",
        "device": "cpu",
        "versions": {},
    }
    return networks.ModelCard.model_validate({**values, **changes})


@pytest.mark.parametrize("name", networks.ARCHITECTURES)
def test_seven_outputs_and_seeded_weights(name: str) -> None:
    a, b, c = (networks.build(name, "random", seed) for seed in (0, 0, 1))
    assert a.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    heads = [list(network.parameters())[-2] for network in (a, b, c)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_running_statistics_follow_faster_from_random_weights(hub: Path) -> None:
    def momenta(weights: Literal["imagenet", "random"]) -> set[float | None]:
        network = networks.build("mobilenetv2", weights, 0)
        return {m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)}

    torch.save(torchvision.models.mobilenet_v2().state_dict(), hub / "mobilenet_v2-b0353104.pth")
    assert momenta("random") == {0.3}
    assert momenta("imagenet") == {0.1}


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    networks.build("mobilenetv2", "random", 0)
    assert torch.equal(torch.rand(1), expected)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A $TORCH_HOME of our own; what is fetched fails as without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(url: str, *_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("name", "tv_name", "file"),
    [
        ("resnet50", "resnet50", "resnet50-0676ba61.pth"),
        ("mobilenetv2", "mobilenet_v2", "mobilenet_v2-b0353104.pth"),
    ],
)
def test_imagenet_weights_from_file_save_for_the_head(
    name: str, tv_name: str, file: str, hub: Path
) -> None:
    published = torchvision.models.get_model(tv_name)
    torch.save(published.state_dict(), hub / file)
    state = networks.build(name, "imagenet", 0).state_dict()
    fresh = networks.build(name, "random", 0).state_dict()
    head = [key for key in state if state[key].shape != published.state_dict()[key].shape]
    assert len(head) == 2
    for key, value in state.items():
        assert torch.equal(value, fresh[key] if key in head else published.state_dict()[key])


def test_weights_that_are_not_torchvisions_own_are_told(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = hub / "mobilenet_v2-b0353104.pth"
    file.write_bytes(b"others")
    digest = hashlib.sha256(b"others").hexdigest()[:16]
    assert networks.weights_digest("mobilenetv2") == digest
    assert capsys.readouterr().out == (
        f"{file}: not torchvision's own file, its SHA-256 begins with {digest}\n"
    )


def test_no_network_and_no_file_says_where_to_put_it(hub: Path) -> None:
    with pytest.raises(LesionsError) as error:
        networks.build("resnet50", "imagenet", 0)
    for word in ("https://download.pytorch.org/models/resnet50-0676ba61.pth", str(hub), "random"):
        assert word in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>busy</html>", b"PK\x03\x04 cut"])
def test_damaged_weights_file(hub: Path, content: bytes) -> None:
    (hub / "resnet50-0676ba61.pth").write_bytes(content)
    with pytest.raises(LesionsError, match=r"resnet50-0676ba61\.pth: no whole weights file"):
        networks.build("resnet50", "imagenet", 0)


def test_weights_file_that_would_run_code_is_refused(hub: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (hub / "executed",))

    torch.save({"x": Evil()}, hub / "resnet50-0676ba61.pth")
    with pytest.raises(LesionsError, match="no whole weights file"):
        networks.build("resnet50", "imagenet", 0)
    assert not (hub / "executed").exists()


def test_weights_of_another_network(hub: Path) -> None:
    torch.save({"a": torch.zeros(1)}, hub / "resnet50-0676ba61.pth")
    with pytest.raises(LesionsError, match="do not fit"):
        networks.build("resnet50", "imagenet", 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mobilenetv2.safetensors"
    networks.save(path, networks.build("mobilenetv2", "random", 0).state_dict(), SUBSPACE, card())
    return path


def test_file_gives_back_the_same_network(file: Path) -> None:
    original = networks.Classifier(networks.build("mobilenetv2", "random", 0), card(), CPU, False)
    original.network.eval()
    read = networks.load(file, CPU, False)
    photos = torch.rand(3, 3, 32, 32)
    expected = original.logits(photos.clone())
    assert torch.equal(read.logits(photos.clone()), expected)
    assert read.card == card()
    by_hand = original.network(
        (photos - torch.tensor(card().mean).view(3, 1, 1)) / torch.tensor(card().std).view(3, 1, 1)
    )
    torch.testing.assert_close(by_hand, expected, atol=1e-5, rtol=1e-5)


def test_same_content_same_bytes(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "other.safetensors"
    networks.save(other, networks.build("mobilenetv2", "random", 0).state_dict(), SUBSPACE, card())
    assert other.read_bytes() == file.read_bytes()


def test_temperature_calibrates(file: Path) -> None:
    logits = np.array([[2.0, 0, 0, 0, 0, 0, 0]], np.float32)
    probabilities = networks.load(file, CPU, False).probabilities(logits)
    assert probabilities[0, 0] == pytest.approx(np.e / (np.e + 6))
    assert probabilities.sum() == pytest.approx(1)


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match=r"not found\. `dvc repro` trains it"):
        networks.load(tmp_path / "resnet50.safetensors", CPU, False)


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_truncated_model(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(LesionsError, match=r"mobilenetv2\.safetensors: not a whole model"):
        networks.load(file, CPU, False)


def test_altered_model(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(LesionsError, match=r"mobilenetv2\.safetensors: .*checksum: damaged or alt"):
        networks.load(file, CPU, False)


def test_another_architecture_than_expected(file: Path) -> None:
    assert networks.load(file, CPU, False, "mobilenetv2").card == card()
    with pytest.raises(LesionsError, match="holds mobilenetv2, not resnet50"):
        networks.load(file, CPU, False, "resnet50")


def test_models_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(LesionsError, match="of another program"):
        networks.load(path, CPU, False)
    state = networks.build("mobilenetv2", "random", 0).state_dict()
    networks.save(path, state, SUBSPACE, card(classes=("cat", "dog")))
    with pytest.raises(LesionsError, match="classes cat, dog; this version tells akiec"):
        networks.load(path, CPU, False)
    networks.save(path, state, SUBSPACE, card().model_copy(update={"format": 2}))
    with pytest.raises(LesionsError, match="format is 2"):
        networks.load(path, CPU, False)
    networks.save(path, state, SUBSPACE, card(architecture="resnet50"))
    with pytest.raises(LesionsError, match="do not fit resnet50"):
        networks.load(path, CPU, False)
    networks.save(path, state, SUBSPACE, card().model_copy(update={"doubt": None}))
    with pytest.raises(LesionsError, match="doubt is None: "):
        networks.load(path, CPU, False)
    networks.save(path, state, SUBSPACE, card(architecture="vgg"))
    with pytest.raises(LesionsError, match="'vgg' is unknown; known are resnet50, mobilenetv2"):
        networks.load(path, CPU, False)


@pytest.mark.parametrize("name", networks.ARCHITECTURES)
def test_features_are_what_the_head_sees(name: Literal["resnet50", "mobilenetv2"]) -> None:
    classifier = networks.Classifier(
        networks.build(name, "random", 0).eval(), card(architecture=name), CPU, False
    )
    head = classifier.network.get_submodule("fc" if name == "resnet50" else "classifier")
    seen: list[torch.Tensor] = []
    head.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    images = torch.rand(2, 3, 64, 64)
    logits, features = classifier.look(images.clone())
    torch.testing.assert_close(features, torch.nn.functional.normalize(seen[0]))
    torch.testing.assert_close(logits, classifier.logits(images))
    assert len(seen) == 2


def test_distances_by_hand(file: Path) -> None:
    classifier = networks.load(file, CPU, False)
    np.testing.assert_array_equal(classifier.subspace, SUBSPACE)
    places = np.zeros((3, 1280), np.float32)
    places[:, 0] = 1  # the mean
    places[1, 1:3] = 5  # along both directions
    places[2, [2, 7, 8]] = 9, 3, 4
    np.testing.assert_allclose(classifier.distances(places), [0, 0, 5], atol=1e-6)
