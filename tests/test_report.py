"""The report page, looked at in a browser."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from conftest import dvc
from playwright.sync_api import Browser, sync_playwright

from lesions.artifacts import write_csv
from lesions.errors import LesionsError
from lesions.report import build

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("project"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page_file(project: Path) -> Path:
    # Back to the committed run, whatever other tests made of the project.
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=project, check=True)
    dvc(project, "checkout", "--force")
    subprocess.run(
        [sys.executable, "-m", "stages.report", "resnet50", "mobilenetv2"],
        cwd=project,
        check=True,
        env={**os.environ, "PYTHONPATH": str(project)},
    )
    return project / "dvc_plots" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_alone_and_fits(
    browser: Browser, page_file: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert told == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    images = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(images) >= 14
    assert all(images)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(250, 250, 248)", "dark": "rgb(22, 22, 22)"}[scheme]
    page.close()


def test_the_page_says_what_is_needed(browser: Browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    text = page.inner_text("body")
    for words in (
        "Drawn pictures, not photographs",
        "On these 9 test photos",
        "balanced accuracy",
        "exact McNemar test",
        "image_size: 32",
        "Commit ",
        "No medical device",
    ):
        assert words in text
    page.close()


def test_results_of_other_models_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("scores", "per_class", "comparison"):
        write_csv(Path(f"plots/{name}.csv"), pd.DataFrame({"model": ["MobileNetV2"]}))
    with pytest.raises(LesionsError, match=r"of MobileNetV2, not of MobileNetV2, ResNet50\. `dvc"):
        build(["resnet50", "mobilenetv2"])
