"""A remote on S3, as a server of its own: push, pull, and what happens when one dies halfway."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from helpers import change_params, commit, copy_project, dvc, git

pytest.importorskip("dvc_s3", reason="the extra `s3` is not installed")
pytest.importorskip("moto", reason="the extra `servers` is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server with an empty bucket, in memory: its address."""
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    nothing = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=nothing, stderr=nothing) as server:
        for _ in range(300):
            try:
                requests.put(f"{address}/lesions", timeout=5).raise_for_status()
                break
            except requests.ConnectionError:
                assert server.poll() is None
                time.sleep(0.1)
        yield address
        server.terminate()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, warm_python: None) -> Path:
    """A project with a trained network; not to be changed."""
    project = copy_project(tmp_path_factory.mktemp("trained"), image_size=32, epochs=1)
    dvc(project, "repro", "train-mobilenetv2")
    return project


@pytest.fixture
def place(trained: Path, tmp_path: Path, s3: str) -> Path:
    """The same with the bucket as its remote."""
    project = tmp_path / "project"
    shutil.copytree(trained, project, symlinks=True)
    dvc(project, "remote", "add", "--default", "shared", "s3://lesions/cache")
    dvc(project, "remote", "modify", "shared", "endpointurl", s3)
    commit(project, "results")
    return project


def clone_of(place: Path, name: str) -> Path:
    clone = place.with_name(name)
    git(place.parent, "clone", "--quiet", str(place), str(clone))
    git(clone, "config", "user.name", "test")
    git(clone, "config", "user.email", "test@example.com")
    return clone


def objects(s3: str) -> int:
    """Count the objects in the bucket."""
    return requests.get(f"{s3}/lesions?list-type=2", timeout=9).text.count("<Key>")


def test_push_pull_a_model_and_an_experiment(place: Path, s3: str) -> None:
    dvc(place, "push")
    assert objects(s3) > 100  # each photo is one
    clone = clone_of(place, "clone")
    dvc(clone, "pull", "train-mobilenetv2", "resize", "split", "balance", "download")
    for file in ("models/mobilenetv2.safetensors", "data/resized/images.npy"):
        assert (clone / file).read_bytes() == (place / file).read_bytes()
    assert "Running stage" not in dvc(clone, "repro", "train-mobilenetv2")

    # A model alone, by its name, in a folder that is no project.
    elsewhere = place.with_name("elsewhere")
    elsewhere.mkdir()
    git(place, "tag", "--annotate", "--message", "first", "mobilenetv2@v1.0.0")
    dvc(elsewhere, "artifacts", "get", str(place), "mobilenetv2")
    model = next(elsewhere.rglob("mobilenetv2.safetensors"))
    assert model.read_bytes() == (place / "models/mobilenetv2.safetensors").read_bytes()

    # An experiment: git carries its commit, the bucket its files.
    change_params(clone / "params.yaml", lr=0.002)
    dvc(clone, "exp", "run", "--name", "other-rate", "train-mobilenetv2")
    trained = (clone / "models/mobilenetv2.safetensors").read_bytes()
    dvc(clone, "exp", "push", "origin", "other-rate")
    assert "other-rate" in dvc(place, "exp", "list")
    path = "models/mobilenetv2.safetensors"
    dvc(elsewhere, "get", str(place), path, "--rev", "other-rate", "--out", "other.safetensors")
    assert (elsewhere / "other.safetensors").read_bytes() == trained


def test_a_push_that_is_killed_halfway_is_completed_by_the_next(place: Path, s3: str) -> None:
    pushing = subprocess.Popen(
        [sys.executable, "-m", "dvc", "push", "--jobs", "1"],
        cwd=place,
        env=os.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while objects(s3) < 20:
        assert pushing.poll() is None
        time.sleep(0.02)
    os.killpg(pushing.pid, signal.SIGKILL)
    pushing.wait()
    half = objects(s3)
    dvc(place, "push")
    assert objects(s3) > half
    clone = clone_of(place, "clone")
    dvc(clone, "pull", "train-mobilenetv2", "resize", "download")
    assert len(list((clone / "data/raw/images").iterdir())) > 90

    # A pull that is killed halfway, too.
    shutil.rmtree(clone)
    clone = clone_of(place, "clone")
    pulling = subprocess.Popen(
        [sys.executable, "-m", "dvc", "pull", "--jobs", "1", "download"],
        cwd=clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    cache = clone / ".dvc/cache/files/md5"
    while len(list(cache.rglob("*"))) < 20 and pulling.poll() is None:
        time.sleep(0.02)
    os.killpg(pulling.pid, signal.SIGKILL)
    pulling.wait()
    dvc(clone, "pull", "download")
    for photo in sorted((place / "data/raw/images").iterdir()):
        assert (clone / "data/raw/images" / photo.name).read_bytes() == photo.read_bytes()


def test_a_server_that_is_gone_loses_nothing(place: Path, s3: str) -> None:
    dvc(place, "remote", "modify", "shared", "endpointurl", "http://127.0.0.1:9")
    dvc(place, "remote", "modify", "shared", "connect_timeout", "1")
    before = sorted(path.name for path in (place / ".dvc/cache").rglob("*"))
    output = dvc(place, "push", fails=True)
    assert "ERROR" in output
    assert sorted(path.name for path in (place / ".dvc/cache").rglob("*")) == before
