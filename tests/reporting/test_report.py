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
from playwright.sync_api import Browser, expect

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.dataset.metadata import read_table
from lesions.evaluation.tables import TABLES
from lesions.networks import model_file
from lesions.reporting import results
from lesions.reporting.results import read_results
from lesions.scoring.guards import MIN_CASES
from lesions.serving.answers import read_evidence

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
    assert len(images) == 3
    assert all(images)
    # Each plot is there once, in the colours of the scheme, and not wider than its frame.
    wide, narrow = (
        page.locator(f"figure {kind} > svg:visible") for kind in (".only-wide", ".narrow")
    )
    shown, other = (narrow, wide) if width == 390 else (wide, narrow)
    assert shown.count() >= 12
    assert other.count() == 0
    label = shown.first.locator("text").first
    ink = {"light": "rgb(28, 28, 28)", "dark": "rgb(236, 236, 234)"}[scheme]
    assert label.evaluate("text => getComputedStyle(text).fill") == ink
    fits = "svg => svg.getBoundingClientRect().width <= svg.closest('figure').clientWidth"
    assert shown.evaluate_all(f"svgs => svgs.every({fits})")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
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
        "models, evaluation and parameters belong together",
        "trained on 81 photos, chosen and calibrated on 9, tested here on 9",
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
    known.add(str(MIN_CASES))
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


def test_the_browser_shows_every_photo_and_its_filters_are_in_the_address(
    browser: Browser, page_file: Path, tmp_path: Path
) -> None:
    plots = page_file.parent.parent / "plots"
    tables = {
        name: pd.read_csv(plots / name / "predictions.csv") for name in ("resnet50", "mobilenetv2")
    }
    wrong = {name: table["actual"] != table["predicted"] for name, table in tables.items()}
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(page_file.with_name("photos.html").as_uri())
    assert page.locator("li").count() == 9
    assert page.locator("li figure img").count() == 3 * 9
    assert page.locator("li tbody tr").count() == 2 * 9
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious_findings(page) == []
    # What needs a look comes first.
    some = int((wrong["resnet50"] | wrong["mobilenetv2"]).sum())
    assert f"Of 9 test photos, {some} need a look" in page.inner_text("main")
    assert page.locator("li .wrong").first.is_visible()
    page.select_option("select[name=show]", "wrong-in-all")
    both = int((wrong["resnet50"] & wrong["mobilenetv2"]).sum())
    assert page.locator("li:visible").count() == both
    assert f"{both} of 9" in page.inner_text("#count")
    # The address leads back to the same view.
    assert page.url.endswith("#show=wrong-in-all")
    page.goto("about:blank")
    page.go_back()
    assert page.locator("li:visible").count() == both
    page.select_option("select[name=show]", "")
    page.select_option("select[name=model]", "resnet50")
    page.select_option("select[name=actual]", "nv")
    page.select_option("select[name=predicted]", "nv")
    one = tables["resnet50"]
    assert (
        page.locator("li:visible").count()
        == ((one["actual"] == "nv") & (one["predicted"] == "nv")).sum()
    )
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("li:visible")).to_have_count(9)
    # Doubted labels become a file.
    ids = [str(page.locator("li").nth(number).get_attribute("id")) for number in (1, 4)]
    for number in (1, 4):
        page.locator("li").nth(number).locator(".doubt").check()
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "leave_out.csv")
    assert read_table(tmp_path / "leave_out.csv", "image_id")["image_id"].tolist() == sorted(ids)
    page.close()


def test_every_count_of_the_confusion_matrices_leads_to_its_photos(
    browser: Browser, page_file: Path
) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    links = page.locator("a[href^='photos.html#']").evaluate_all(
        "links => links.map(link => [link.getAttribute('href'), link.textContent])"
    )
    confusion = [(href, int(text)) for href, text in links if text.isdigit()]
    assert sum(count for _, count in confusion) == 2 * 9
    view = browser.new_page()
    for href, count in confusion:
        view.goto(page_file.parent.as_uri() + "/" + href)
        view.reload()  # an address that differs behind the # alone is not loaded again
        assert view.locator("li:visible").count() == count, href
    page.close()
    view.close()


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
    git(project, "checkout", "--quiet", ".")
    dvc(project, "checkout", "--force")
    monkeypatch.chdir(project)
    paths = [Path(f"models/{name}.safetensors") for name in ("resnet50", "mobilenetv2")]
    titles = ["ResNet50", "MobileNetV2"]
    found = read_evidence(paths, titles, DATASET, "most-probable", 1)
    first, second, verdict = found.sentences
    metrics = pd.read_csv("plots/metrics.csv").set_index(["model", "metric"])["value"]
    accuracy = metrics["ResNet50", "accuracy"]
    assert first.startswith(f"ResNet50, on 9 test photos: accuracy {accuracy:.3f}, balanced")
    assert second.startswith("MobileNetV2, on 9 test photos: accuracy")
    assert verdict.startswith("On these 9 test photos")
    assert found.examples == {}  # synthetic ones are drawn
    # Of other files, or by another rule, the results say nothing; of some of the models, less.
    elsewhere = [path.absolute() for path in paths]
    assert read_evidence(elsewhere, titles, DATASET, "most-probable", 1).sentences == []
    assert read_evidence(paths, titles, DATASET, "balanced", 1).sentences == []
    assert read_evidence(paths, titles, DATASET, "most-probable", 4).sentences == []
    one = read_evidence(paths[:1], titles[:1], DATASET, "most-probable", 1)
    assert one.sentences == [first]
