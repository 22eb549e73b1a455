"""The fixtures that tests share."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import helpers
import numpy as np
import pandas as pd
import pytest
import warm
from helpers import CHROMIUM, CODES, PARAMS, commit, copy_project, dvc, generate_raw

from lesions.common.artifacts import write_csv
from lesions.common.params import Params
from lesions.common.user_cache import CACHE_VARIABLE
from lesions.dataset.photos import PhotoArray

if TYPE_CHECKING:  # the GPU tests run without playwright
    from playwright.sync_api import Browser


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a user's cache of its own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def params() -> Params:
    """The published parameters."""
    return PARAMS


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data/raw of 28 synthetic photos, four lesions of each diagnosis; not to be changed."""
    folder = tmp_path_factory.mktemp("synthetic") / "raw"
    generate_raw(0, folder, dict.fromkeys(CODES, (4, 0, 0)))
    return folder


@pytest.fixture(scope="session")
def noise_table() -> pd.DataFrame:
    """The 28 photos of `noise`: image_id, lesion_id and dx."""
    ids = [f"P{k:02}" for k in range(28)]
    return pd.DataFrame(
        {"image_id": ids, "lesion_id": ids, "dx": [CODES[k % 7] for k in range(28)]}
    )


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory, noise_table: pd.DataFrame) -> PhotoArray:
    """28 photos of noise, 32 px, each diagnosis with its own colour."""
    folder = tmp_path_factory.mktemp("resized")
    rng = np.random.default_rng(0)
    hues = rng.integers(0, 200, (7, 1, 1, 3))
    images = np.concatenate(
        [hues[[k % 7]] + rng.integers(0, 55, (1, 32, 32, 3)) for k in range(28)]
    )
    np.save(folder / "images.npy", images.astype(np.uint8))
    write_csv(folder / "image_ids.csv", noise_table[["image_id"]])
    return PhotoArray(folder)


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let DVC's stages start at once."""
    if sys.platform == "linux":
        helpers.WARM = warm.start(tmp_path_factory.mktemp("warm"))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, warm_python: None) -> Path:
    """A repository in which the pipeline, tiny, has run once; its results are committed."""
    folder = copy_project(tmp_path_factory.mktemp("project"), image_size=32, epochs=1)
    output = dvc(folder, "repro")
    assert "ERROR" not in output
    commit(folder, "results")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """A Chromium of this system."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
