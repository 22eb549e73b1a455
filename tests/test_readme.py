"""The README's commands work and its files exist."""

import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, dvc, git, run

README = (ROOT / "README.md").read_text()


def commands(text: str) -> list[list[str]]:
    """List the lines of a page's bash blocks."""
    return [
        shlex.split(line, comments=True)
        for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
        if line
    ]


COMMANDS = commands(README)


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command[1] for command in COMMANDS if command[0] == "make" and len(command) > 1}
    assert {"repro", "report"} <= named <= targets


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_no_line_is_longer_than_a_reader_wants() -> None:
    for line in README.splitlines():
        assert len(line) <= 120, line


def test_every_dependency_says_what_it_is_for() -> None:
    block = re.search(
        r"dependencies = \[(.*?)\n\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL
    )
    assert block is not None
    for line in block[1].strip().splitlines():
        assert re.search(r'",  # \w+', line), line


@pytest.mark.slow
@pytest.mark.xdist_group("project")
def test_dvc_commands_run(project: Path, raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "HAM10000"
    shutil.copytree(raw / "images", folder / "HAM10000_images_part_1")
    shutil.copy(raw / "metadata.csv", folder / "HAM10000_metadata.csv")
    lines = [command[1:] for command in COMMANDS if command[0] == "dvc"]
    assert {"repro", "exp", "metrics", "plots", "dag"} <= {line[0] for line in lines}
    for line in lines:
        if line[0] == "get":
            continue  # from another repository: tests/test_pipeline.py
        if "queue" in line or "--queue" in line:
            continue  # the sweep, below
        if "dataset=datasets/photos.yaml" in line:
            continue  # test_pipeline.py: a stranger's folder
        if "source=dataverse" in line or "source=kaggle" in line:
            continue  # tests/sources
        if "source=$HOME/HAM10000" in line:
            line = [word.replace("$HOME/HAM10000", str(folder)) for word in line]
            line += ["-S", "weights=random"]  # ImageNet's cannot be downloaded in a test
        output = dvc(project, *line)
        assert "ERROR" not in output, line


@pytest.mark.slow
@pytest.mark.xdist_group("project")
def test_the_sweep_trains_and_validates_but_never_evaluates(project: Path) -> None:
    git(project, "checkout", "--quiet", ".")
    dvc(project, "checkout", "--force")
    before = (project / "metrics/test/mobilenetv2.json").read_bytes()
    start = next(n for n, command in enumerate(COMMANDS) if "--queue" in command)
    queue, work, status, compare = COMMANDS[start : start + 4]
    assert dvc(project, *queue[1:]).count("Queued experiment") == 4
    dvc(project, *work[1:])
    for _ in range(200):
        shown = dvc(project, *status[1:])
        if "Queued" not in shown and "Running" not in shown:
            break
        time.sleep(1)
    assert shown.count("Success") == 4
    assert compare[:2] == ["lesions", "compare"]
    # The first table: experiments of other tests on other photos have one of their own.
    command = [sys.executable, "-m", "lesions.commands", *compare[1:]]
    table = run(project, *command).partition("\n\n")[0]
    heading, names, *lines = table.splitlines()
    assert heading.startswith("weighted F1 on validation")
    assert names.split() == ["experiment", "changed", "MobileNetV2"]
    sweep = [line.split() for line in lines if line.startswith("sweep-")]
    assert len(sweep) == 4
    changed = {cell.split("=")[0] for row in sweep for cell in row[1:-1]}
    assert changed <= {"image_size", "lr", "schedule"}
    scores = [float(line.split()[-1]) for line in lines if line.startswith(("sweep-", "work"))]
    assert scores == sorted(scores, reverse=True)
    assert max(map(len, lines)) <= 120
    assert (project / "metrics/test/mobilenetv2.json").read_bytes() == before
