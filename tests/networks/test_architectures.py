import hashlib
from pathlib import Path

import pytest
import torch
import torchvision
from helpers import PARAMS, network_of

from lesions.common.errors import LesionsError
from lesions.common.params import NetworkSpec, StartingWeights
from lesions.networks.architectures import build, find_feature_map, imagenet_weights_hash

RESNET, MOBILENET = PARAMS.networks["resnet50"], PARAMS.networks["mobilenetv2"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A $TORCH_HOME of its own; every download fails, as without internet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(url: str, *_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", PARAMS.networks)
def test_seven_outputs_and_seeded_weights(name: str) -> None:
    a, b, c = (network_of(name, seed) for seed in (0, 0, 1))
    assert a.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    heads = [list(network.parameters())[-2] for network in (a, b, c)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_running_statistics_follow_faster_from_random_weights(hub: Path) -> None:
    def momenta(weights: StartingWeights) -> set[float | None]:
        network = build(MOBILENET, 7, weights, 0)
        return {m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)}

    torch.save(torchvision.models.mobilenet_v2().state_dict(), hub / "mobilenet_v2-b0353104.pth")
    assert momenta("random") == {0.3}
    assert momenta("imagenet") == {0.1}


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    network_of("mobilenetv2")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("entry", "file"),
    [(RESNET, "resnet50-0676ba61.pth"), (MOBILENET, "mobilenet_v2-b0353104.pth")],
)
def test_imagenet_weights_are_loaded_into_all_but_the_head(
    entry: NetworkSpec, file: str, hub: Path
) -> None:
    published = torchvision.models.get_model(entry.torchvision)
    torch.save(published.state_dict(), hub / file)
    state = build(entry, 7, "imagenet", 0).state_dict()
    fresh = build(entry, 7, "random", 0).state_dict()
    head = [key for key in state if state[key].shape != published.state_dict()[key].shape]
    assert len(head) == 2
    for key, value in state.items():
        assert torch.equal(value, fresh[key] if key in head else published.state_dict()[key])


def test_weights_that_are_not_torchvisions_own_are_reported(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = hub / "mobilenet_v2-b0353104.pth"
    file.write_bytes(b"others")
    digest = hashlib.sha256(b"others").hexdigest()[:16]
    assert imagenet_weights_hash(MOBILENET) == digest
    assert capsys.readouterr().out == (
        f"{file}: not torchvision's own file; its SHA-256 begins with {digest}\n"
    )


def test_without_internet_the_error_says_where_to_put_the_file(hub: Path) -> None:
    with pytest.raises(LesionsError) as error:
        build(RESNET, 7, "imagenet", 0)
    for word in ("https://download.pytorch.org/models/resnet50-0676ba61.pth", str(hub), "random"):
        assert word in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>busy</html>", b"PK\x03\x04 cut"])
def test_damaged_weights_file(content: bytes, hub: Path) -> None:
    (hub / "resnet50-0676ba61.pth").write_bytes(content)
    with pytest.raises(LesionsError, match=r"resnet50-0676ba61\.pth: not a whole weights file"):
        build(RESNET, 7, "imagenet", 0)


def test_a_weights_file_that_would_run_code_is_refused(hub: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (hub / "executed",))

    torch.save({"x": Evil()}, hub / "resnet50-0676ba61.pth")
    with pytest.raises(LesionsError, match="not a whole weights file"):
        build(RESNET, 7, "imagenet", 0)
    assert not (hub / "executed").exists()


def test_weights_of_another_network(hub: Path) -> None:
    torch.save({"a": torch.zeros(1)}, hub / "resnet50-0676ba61.pth")
    with pytest.raises(LesionsError, match="do not fit"):
        build(RESNET, 7, "imagenet", 0)


@pytest.mark.parametrize(
    "changes", [{"torchvision": "resnet5000"}, {"torchvision": "resnet18", "features": "layer9"}]
)
def test_what_torchvision_does_not_have_is_named(changes: dict[str, str]) -> None:
    entry = RESNET.model_copy(update=changes)
    with pytest.raises(LesionsError, match=f"does not have '{entry.torchvision}'.*list_models"):
        build(entry, 7, "random", 0)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("resnet18", "layer4"),
        ("mobilenet_v3_small", "features"),
        ("efficientnet_b0", "features"),
        ("convnext_tiny", "features"),
    ],
)
def test_the_feature_map_is_found_by_a_forward_pass(name: str, features: str) -> None:
    assert find_feature_map(name, 64) == features


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet5000", "not a classifier of torchvision"),
        ("vit_b_16", "cannot use photos of 64 px"),
        ("googlenet", "other outputs than one value per class"),
    ],
)
def test_networks_that_training_cannot_use_are_refused_in_words(name: str, words: str) -> None:
    with pytest.raises(LesionsError, match=words):
        find_feature_map(name, 64)


def test_a_transformer_has_no_feature_map() -> None:
    with pytest.raises(LesionsError, match="Name it: --features"):
        find_feature_map("vit_b_32", 224)
