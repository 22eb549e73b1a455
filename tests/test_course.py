"""The course: what its pages tell readers to type works, and what they claim is true."""

import contextlib
import dataclasses
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, copy_project, random_predictions, run
from matplotlib.figure import Figure
from test_readme import commands

from lesions.common.errors import LesionsError
from studies import course

PAGES = ROOT / "docs/course"
# As the pages, but small: photos enough for a threshold.
SMALL = ("-S", "sample_size=700", "-S", "image_size=32", "-S", "epochs=2")
# Steps enough to learn a ruler, and classes better than chance.
TRAINED = ("sample_size=800", "image_size=48", "batch_size=16")
PROGRAMS = {
    "dvc": [sys.executable, "-m", "dvc"],
    "lesions": [sys.executable, "-m", "lesions.commands"],
    "python": [sys.executable],
}


def test_pages_have_what_students_and_teachers_look_for() -> None:
    index = (PAGES / "README.md").read_text()
    names = [path.stem for path in sorted(PAGES.glob("[0-9]*.md"))]
    assert len(names) == 8
    assert set(course.LESSONS) < set(names)
    for name in names:
        text = (PAGES / f"{name}.md").read_text()
        minutes = [int(one) for one in re.findall(r"^(?:teaching|exercises): (\d+)$", text, re.M)]
        row = next(line for line in index.splitlines() if f"({name}.md)" in line)
        assert row.split("|")[-2].strip() == str(sum(minutes))
        assert f"**Time:** {sum(minutes)} minutes" in text
        for part in ("**Question:**", "**Objectives:**", "## Predict first", "## Key points"):
            assert text.count(part) == 1, (name, part)
        assert text.count("<details><summary>Answer</summary>") == 3


def test_blocks_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Before\n\n<!-- output -->\nold\n<!-- end -->\n\nMiddle\n\n"
        "<!-- effects -->\n<!-- end -->\nAfter\n"
    )
    effect = course.Effect(0.25, 0.125, 0.5)
    lesson = course.Lesson("what came", {"found": effect}, Figure())
    course.fill(page, [lesson, lesson])
    filled = page.read_text()
    assert "old" not in filled
    assert "```text\nwhat came\n```\n\n<!-- end -->\n\nMiddle" in filled
    assert "| difference | seed 0 | seed 1 |" in filled
    assert "| found | 0.250 (0.125 to 0.500) | 0.250 (0.125 to 0.500) |" in filled
    assert filled.startswith("Before\n\n<!-- output -->")
    assert filled.endswith("<!-- end -->\nAfter\n")
    course.fill(page, [lesson, lesson])
    assert page.read_text() == filled
    page.write_text("no blocks")
    with pytest.raises(LesionsError, match=r"page.md: needs <!-- output -->"):
        course.fill(page, [lesson])


def test_an_effect_holds_if_its_interval_says_so() -> None:
    assert course.Effect(0.1, 0.05, 0.2, True).holds
    assert not course.Effect(0.1, -0.01, 0.2, True).holds
    assert course.Effect(0.1, -0.01, 0.2).holds


def test_an_effect_is_a_mean_over_photos_and_its_interval_is_over_lesions() -> None:
    lead = np.array([1, 0, 1, 1] * 30)
    part = np.array([True, True, True, False] * 30)
    alone = pd.Series([str(photo) for photo in range(120)])
    effect = course.mean_of(lead, part, alone)
    assert effect.value == pytest.approx(2 / 3)
    assert effect.low < 2 / 3 < effect.high
    # Photos of a lesion that are all alike are worth one.
    twice = course.mean_of(np.repeat(lead, 4), np.repeat(part, 4), pd.Series(np.repeat(alone, 4)))
    assert (twice.low, twice.high) == pytest.approx((effect.low, effect.high), abs=0.02)
    wider = course.mean_of(lead, part, alone, 0.999)
    assert wider.low < effect.low < effect.high < wider.high


def test_a_better_network_has_a_difference_above_0() -> None:
    first = random_predictions(seed=0)
    second = dataclasses.replace(first, predicted=first.labels)  # always right
    third = dataclasses.replace(first, predicted=(first.labels + 1) % 7)
    effects = course.compare([first, second, third])
    assert effects["accuracy: network 2 − 1"].low > 0
    assert effects["accuracy: network 3 − 2"].value == -1
    assert list(effects) == [f"accuracy: network {pair}" for pair in ("2 − 1", "3 − 1", "3 − 2")]


def test_the_parameters_of_the_start_are_those_of_the_page(tmp_path: Path) -> None:
    changes = course.starting_changes(PAGES / "README.md")
    assert {"source=teaching", "holdout=any-lesion", "balance=none"} < set(changes)
    (tmp_path / "page.md").write_text("dvc repro")
    with pytest.raises(LesionsError, match=r"page.md: has no line with dvc exp run"):
        course.starting_changes(tmp_path / "page.md")


@pytest.mark.slow
@pytest.mark.xdist_group("course")
def test_commands_of_all_pages_run_in_order(tmp_path: Path, warm_python: None) -> None:
    project = copy_project(tmp_path / "lesions")
    pages = [PAGES / "README.md", *sorted(PAGES.glob("[0-9]*.md"))]
    outputs = {page.stem: "" for page in pages}
    for page in pages:
        text = page.read_text().replace("\\\n", " ")
        for words in commands(text):
            if words[0] in ("make", "source") or words[:2] == ["git", "clone"]:
                continue
            if "source=teaching" in words:  # the start
                words += SMALL
            program = PROGRAMS.get(words[0], words[:1])
            outputs[page.stem] += run(project, *program, *words[1:])
    assert "| lesions with one photo |" in outputs["1-leak"]
    assert "threshold for melanoma at sensitivity .90" in outputs["2-threshold"]
    assert outputs["3-shortcut"].count("| rulers on 80% |") == 3
    assert outputs["4-pipeline"].count("Running stage 'evaluate'") == 1  # then from the cache
    assert "Running stage 'train" not in outputs["4-pipeline"] + outputs["5-imbalance"]
    assert "balanced accuracy" in outputs["5-imbalance"]
    assert "| the validation set |" in outputs["6-choosing"]
    assert "MobileNetV2, 3 seeds, 1 splits" in outputs["7-luck"]
    assert "photos of" in outputs["8-your-photos"]
    assert (tmp_path / "photos/metadata.csv").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # four trainings: 4 minutes of one core
@pytest.mark.xdist_group("course")
def test_pages_are_filled_and_their_claims_hold(tmp_path: Path) -> None:
    pages = shutil.copytree(PAGES, tmp_path / "pages")
    for page in pages.glob("[0-9]*.md"):
        page.write_text(course.BLOCK.sub(r"\1\3", page.read_text()))
        page.with_suffix(".png").unlink(missing_ok=True)
    with contextlib.suppress(SystemExit):  # "Does not hold": see below
        course.main([*TRAINED], 1, tmp_path / "course", pages)
    for name in course.LESSONS:
        text = (pages / f"{name}.md").read_text()
        assert "| difference | seed 0 |" in text
        assert len(rows_of(pages / f"{name}.md")) >= 2, name
        assert (pages / f"{name}.png").stat().st_size > 10_000
    assert "split by lesion" in (pages / "1-leak.md").read_text().split("<!-- output -->")[1]
    # Two more claims need the photos of `make course`: melanomas found by `balanced` (page 5), and
    # the accuracy that test photos with the shortcut report (page 3).
    for name, title in (
        ("1-leak", "all"),
        ("1-leak", "lesions with several"),
        ("2-threshold", "melanoma found: threshold − most probable"),
        ("2-threshold", "false alarms: threshold − most probable"),
        ("3-shortcut", "others predicted as melanoma: rise by a ruler"),
        ("6-choosing", "chosen on the test set: test − new photos"),
    ):
        row = next(row for row in rows_of(pages / f"{name}.md") if row.startswith(f"| {title}"))
        low = row.split("(")[1].split(" to ")[0]
        assert not low.startswith("−"), row
        assert float(low) > 0, row


def rows_of(page: Path) -> list[str]:
    """Read the rows of a page's table of effects."""
    table = page.read_text().split("<!-- effects -->")[1].split("<!-- end -->")[0]
    return table.strip().splitlines()[2:]
