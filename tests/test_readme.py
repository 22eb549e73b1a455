"""The README's commands work and its files exist."""

import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, dvc

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
    assert {"repro", "test"} <= named <= targets


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_every_link_leads_somewhere_and_no_figure_is_open(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), link
    assert "@@" not in page.read_text()


def test_dependency_table_is_complete() -> None:
    block = re.search(r"dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert block is not None
    for name in re.findall(r'"([a-z-]+)>', block[1]):
        assert re.search(rf"^\| .*`{name}`.* \|", README, re.MULTILINE), name


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
            continue  # from a fork; tests/test_pipeline.py sees to it
        if "source=dataverse" in line or "source=kaggle" in line:
            continue  # tests/test_transfers.py and tests/test_sources.py see to them
        if "source=$HOME/HAM10000" in line:
            line = [word.replace("$HOME/HAM10000", str(folder)) for word in line]
            line += ["-S", "weights=random"]  # ImageNet's are not to be had in a test
        output = dvc(project, *line)
        assert "ERROR" not in output, line


@pytest.mark.slow
@pytest.mark.xdist_group("project")
def test_the_sweep_of_the_guide(project: Path) -> None:
    queue, start, status, show = commands((ROOT / "docs/scaling.md").read_text())
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=project, check=True)
    dvc(project, "checkout", "--force")
    before = (project / "metrics/mobilenetv2.json").read_bytes()
    assert dvc(project, *queue[1:]).count("Queued experiment") == 4
    dvc(project, *start[1:])
    for _ in range(200):
        told = dvc(project, *status[1:])
        if "Queued" not in told and "Running" not in told:
            break
        time.sleep(1)
    assert told.count("Success") == 4
    shown = dvc(project, *show[1:])

    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.split("|")]

    best = [line for line in shown.splitlines() if "sweep-" in line]
    assert len(best) == 4
    names = [re.search(r"sweep-\d", line) for line in best]
    assert len({name[0] for name in names if name}) == 4
    column = show[show.index("--sort-by") + 1]
    heads, *_ = (cells(line) for line in shown.splitlines() if column in line)
    figures = [float(cells(line)[heads.index(column)]) for line in best]
    assert figures == sorted(figures, reverse=True)
    assert (project / "metrics/mobilenetv2.json").read_bytes() == before
