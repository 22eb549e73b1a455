"""The README's commands work and its files exist."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, dvc

README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line
]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command[1] for command in COMMANDS if command[0] == "make" and len(command) > 1}
    assert {"repro", "test"} <= named <= targets


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


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
        if "source=dataverse" in line or "source=kaggle" in line:
            continue  # tests/test_transfers.py and tests/test_sources.py see to them
        if "source=$HOME/HAM10000" in line:
            line = [word.replace("$HOME/HAM10000", str(folder)) for word in line]
            line += ["-S", "weights=random"]  # ImageNet's are not to be had in a test
        output = dvc(project, *line)
        assert "ERROR" not in output, line
