"""The report, looked at in a browser."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from helpers import (
    CHROMIUM,
    DATASET,
    SUBSPACE,
    card_of,
    change_params,
    dvc,
    git,
    network_of,
    serious_findings,
)
from playwright.sync_api import Browser

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.evaluation.tables import TABLES
from lesions.networks import model_file
from lesions.reporting import results
from lesions.reporting.results import read_results

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
        [sys.executable, "-m", "lesions.commands", "report"],
        cwd=project,
        check=True,
        env={**os.environ, "PYTHONPATH": str(project)},
    )
    return project / "dvc_plots" / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1600, 1280, 390])
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
    assert serious_findings(page) == []
    page.close()


def test_the_page_has_the_results(browser: Browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    text = page.text_content("body") or ""  # the parameters are folded
    for words in (
        "Synthetic pictures, not photos",
        "On these 9 test photos",
        "balanced accuracy",
        "exact McNemar test",
        "image_size: 32",
        f"commit {git(page_file.parent, 'log', '-1', '--format=%h', '--', '../dvc.lock').strip()}",
        "Not a medical device",
    ):
        assert words in text
    for link in page.locator("nav a").all():
        assert page.locator(f"{link.get_attribute('href')}").count() == 1
    page.close()
    assert page_file.stat().st_size < 3_000_000
    # The pictures that DVC copies are not left beside it.
    assert [path.name for path in page_file.parent.glob("*.png")] == []


def test_the_json_beside_it_has_every_number_of_the_tables(
    browser: Browser, page_file: Path
) -> None:
    results = json.loads(page_file.with_suffix(".json").read_text())
    known: set[str] = set()

    def collect(value: object) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                known.update(re.findall(r"[\d.]+", str(key)))
                collect(part)
        elif isinstance(value, list):
            for part in value:
                collect(part)
        elif isinstance(value, (int, float)):
            known.update(f"{abs(value):.{digits}f}" for digits in range(4))
        elif isinstance(value, str):
            known.update(re.findall(r"[\d.]+", value))

    collect(results)
    totals = [
        sum(row[key] for row in results["photos"]) for key in results["photos"][0] if key != "dx"
    ]
    known.update(map(str, totals))
    known.update(
        str(round(row["sensitivity"] * row["photos"])) for row in results["test"]["per_class"]
    )
    known.update(str(row["photos"]) for row in results["test"]["confusion"])
    page = browser.new_page()
    page.goto(page_file.as_uri())
    shown = {
        number
        for cell in page.locator("td:not(:has-text(':'))").all_inner_texts()  # times have one
        for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", cell)
    }
    page.close()
    assert len(shown) > 40
    assert shown - known == set()


def test_the_page_of_mistakes_shows_each_wrong_photo_and_filters_them(
    browser: Browser, page_file: Path
) -> None:
    project = page_file.parent.parent
    plots = project / "plots"
    tables = [pd.read_csv(plots / name / "predictions.csv") for name in ("resnet50", "mobilenetv2")]
    wrong = pd.concat([table[table["actual"] != table["predicted"]] for table in tables])
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(page_file.with_name("mistakes.html").as_uri())
    assert page.locator("li").count() == len(wrong)
    assert page.locator("li img").count() == 5 * len(wrong)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious_findings(page) == []
    page.select_option("select[name=actual]", "mel")
    assert page.locator("li:visible").count() == (wrong["actual"] == "mel").sum()
    page.select_option("select[name=model]", "ResNet50")
    chosen = tables[0][(tables[0]["actual"] == "mel") & (tables[0]["predicted"] != "mel")]
    assert page.locator("li:visible").count() == len(chosen)
    assert f"{len(chosen)} of {len(wrong)}" in page.inner_text("#count")
    page.close()


def test_results_of_other_models_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "check_one_run", lambda *_: None)  # here is no repository
    for name in ("resnet50", "mobilenetv2"):
        state, subspace = network_of(name).state_dict(), SUBSPACE
        model_file.save(Path(f"models/{name}.safetensors"), state, subspace, card_of(name))
    for name in (*TABLES, "comparison"):
        row = {"model": ["MobileNetV2"], "photos": [1]}
        write_csv(Path(f"plots/{name}.csv"), pd.DataFrame(row))
    with pytest.raises(LesionsError, match=r"of MobileNetV2, not of MobileNetV2, ResNet50\. `dvc"):
        read_results(["resnet50", "mobilenetv2"], [], DATASET)


@pytest.mark.parametrize(
    ("changes", "stages", "words"),
    [
        # One network trained again, and not evaluated.
        ({"seed": 5}, ["train-mobilenetv2"], "mobilenetv2.safetensors: is not what the stage eval"),
        # Another split.
        ({"split_seed": 3}, ["split"], r"data/split/.*: is not what the stage evaluate has read"),
        # Photos of another size.
        ({"image_size": 48}, ["resize"], "data/resized: is not what the stage evaluate has read"),
        # Two networks trained in two ways, evaluated together.
        (
            {"lr": 0.002},
            ["train-mobilenetv2", "evaluate --single-item"],
            "train-resnet50 and train-mobilenetv2 differ in lr",
        ),
    ],
)
def test_results_of_several_runs_are_refused(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    stages: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(project)
    models = ["resnet50", "mobilenetv2"]
    git(project, "checkout", "--quiet", ".")
    dvc(project, "checkout", "--force")
    change_params(project / "params.yaml", **changes)
    for stage in stages:
        dvc(project, "repro", *stage.split())
    with pytest.raises(LesionsError, match=words):
        read_results(models, [], DATASET)
    git(project, "checkout", "--quiet", ".")
    dvc(project, "checkout", "--force")
    assert read_results(models, [], DATASET).parameters["seed"] == 0


def test_the_demo_quotes_the_last_run_and_no_other_models(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = pytest.importorskip("lesions.serving.demo", reason="the extra `demo` is not installed")
    git(project, "checkout", "--quiet", ".")
    dvc(project, "checkout", "--force")
    monkeypatch.chdir(project)
    paths = [Path(f"models/{name}.safetensors") for name in ("resnet50", "mobilenetv2")]
    titles = ["ResNet50", "MobileNetV2"]
    first, second, verdict = demo.evidence(paths, titles, DATASET)
    metrics = pd.read_csv("plots/metrics.csv").set_index(["model", "metric"])["value"]
    accuracy = metrics["ResNet50", "accuracy"]
    assert first.startswith(f"ResNet50, on 9 test photos: accuracy {accuracy:.3f}, balanced")
    assert second.startswith("MobileNetV2, on 9 test photos: accuracy")
    assert verdict.startswith("On these 9 test photos")
    assert (
        demo.evidence([path.absolute() for path in paths], ["ResNet50", "MobileNetV2"], DATASET)
        == []
    )
