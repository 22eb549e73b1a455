"""The report, looked at in a browser."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from helpers import CHROMIUM, SUBSPACE, card_of, dvc, git, network_of
from playwright.sync_api import Browser

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.networks import model_file
from lesions.reporting.report import build_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("project"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page_file(project: Path) -> Path:
    # Back to the committed run, whatever other tests have done to the project.
    git(project, "checkout", "--quiet", ".")
    dvc(project, "checkout", "--force")
    subprocess.run(
        [sys.executable, "-m", "stages.report"],
        cwd=project,
        check=True,
        env={**os.environ, "PYTHONPATH": str(project)},
    )
    return project / "dvc_plots" / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_alone_and_fits(
    browser: Browser, page_file: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    assert messages == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
    images = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(images) >= 14
    assert all(images)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(250, 250, 248)", "dark": "rgb(22, 22, 22)"}[scheme]
    page.close()


def test_the_page_has_the_results(browser: Browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    text = page.inner_text("body")
    for words in (
        "Synthetic pictures, not photos",
        "On these 9 test photos",
        "balanced accuracy",
        "exact McNemar test",
        "image_size: 32",
        "Commit ",
        "Not a medical device",
    ):
        assert words in text
    page.close()


def test_results_of_other_models_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("resnet50", "mobilenetv2"):
        state, subspace = network_of(name).state_dict(), SUBSPACE
        model_file.save(Path(f"models/{name}.safetensors"), state, subspace, card_of(name))
    for name in ("metrics", "per_class", "comparison", "operating_points"):
        write_csv(Path(f"plots/{name}.csv"), pd.DataFrame({"model": ["MobileNetV2"]}))
    with pytest.raises(LesionsError, match=r"of MobileNetV2, not of MobileNetV2, ResNet50\. `dvc"):
        build_report(["resnet50", "mobilenetv2"], [])
