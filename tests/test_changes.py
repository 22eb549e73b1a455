from pathlib import Path

import pytest
from helpers import PUBLISHED, ROOT, change_params, commit, copy_inputs, git

from stages.changes import changed_parameters


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_inputs(tmp_path)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "user.name", "test")
    git(tmp_path, "config", "user.email", "test@example.com")
    commit(tmp_path, "as it is")
    return tmp_path


def test_changes_of_the_parameters_that_a_stage_reads(committed: Path) -> None:
    assert changed_parameters("train-resnet50") == []
    change_params(committed / "params.yaml", lr=0.0003, image_size=64)
    assert changed_parameters("train-resnet50") == ["lr 0.001 → 0.0003"]
    assert changed_parameters("resize") == ["image_size 224 → 64"]
    assert changed_parameters("balance") == []
    assert changed_parameters() == []


def test_of_the_table_of_networks_only_the_change_is_said(committed: Path) -> None:
    networks = {**PUBLISHED["networks"], "vgg": PUBLISHED["networks"]["resnet50"]}
    change_params(committed / "params.yaml", networks={**networks, "mobilenetv2": {"title": "M"}})
    assert changed_parameters("evaluate") == [
        "networks.mobilenetv2.title MobileNetV2 → M",
        "networks.mobilenetv2.torchvision mobilenet_v2 → None",
        "networks.mobilenetv2.features features → None",
        "networks.vgg added",
    ]


def test_without_a_commit_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert changed_parameters("train-resnet50") == []
