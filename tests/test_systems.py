"""Other systems: what Windows and macOS lack or do otherwise, taken away or imitated here."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, change_params, commit, copy_inputs, copy_project, dvc, git

# What CPython's documentation marks "Availability: Unix"; and Windows flushes no file that is open
# for reading only.
WITHOUT = """
import fcntl, os, runpy, sys
for name in ("sync", "pwrite", "pread", "fork", "getuid", "fchmod"):
    delattr(os, name)
flush = os.fsync
def fsync(number):
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    flush(number)
os.fsync = fsync
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(folder: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, encoding="utf-8", check=False
    )


def test_the_stages_run_without_what_windows_lacks(tmp_path: Path) -> None:
    copy_inputs(tmp_path)
    change_params(tmp_path / "params.yaml", image_size=32, epochs=1)
    for stage in ("download", "resize", "split", "balance", "train"):
        models = ["mobilenetv2"] if stage == "train" else []
        done = run(tmp_path, sys.executable, "-c", WITHOUT, f"stages.{stage}", *models)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "models/mobilenetv2.safetensors").exists()


def test_a_clone_has_the_same_bytes_whatever_line_ends_git_prefers(tmp_path: Path) -> None:
    here, clone = copy_project(tmp_path / "here"), tmp_path / "clone"
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "--quiet", str(here), str(clone))
    names = git(here, "ls-files").splitlines()
    assert [
        name for name in names if (clone / name).read_bytes() != (here / name).read_bytes()
    ] == []


def test_a_locale_without_utf_8_is_no_obstacle(tmp_path: Path) -> None:
    copy_inputs(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    git(tmp_path, "init", "--quiet")
    change_params(tmp_path / "params.yaml", balance="Übermut")
    git(tmp_path, "config", "user.name", "test")
    git(tmp_path, "config", "user.email", "test@example.com")
    commit(tmp_path, "an umlaut")
    change_params(tmp_path / "params.yaml", balance="Größe")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "stages.balance"]
    done = run(tmp_path, *command, **ascii_only, DVC_STAGE="balance")
    changed = r"balance \xdcbermut \u2192 Gr\xf6\xdfe"
    assert done.stdout == f"differs from the last commit: {changed}\n"
    assert done.stderr.startswith(r"error: params.yaml: balance is 'Gr\xf6\xdfe'")


@pytest.fixture
def makefile(tmp_path: Path) -> Path:
    """A clone whose environment has programs that only say their name."""
    place = tmp_path / "a clone"
    (place / ".venv/bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, place / name)
    for name in ("dvc", "lesions", "python"):
        program = place / ".venv/bin" / name
        program.write_text(f"#!/bin/sh\necho '{place}: {name}' $*\n")
        program.chmod(0o755)
    (place / ".venv/ready").write_text(f"{place}\n")
    git(place, "init", "--quiet")
    return place


def test_make_uses_the_environment_of_its_own_folder(makefile: Path) -> None:
    done = run(makefile, "make", "repro")
    assert done.returncode == 0, done.stderr
    assert f"{makefile}: dvc repro" in done.stdout
    # Apple's make runs simple lines itself, with its own PATH, unless SHELL is set.
    assert "\nSHELL := /bin/bash\n" in (makefile / "Makefile").read_text()
    # A copy must not use the original's environment.
    copy = makefile.with_name("copy")
    shutil.copytree(makefile, copy)
    done = run(copy, "make", "setup", "PYTHON=true")
    assert f".venv was made in {makefile}: it is made again" in done.stdout
    assert not (copy / ".venv/bin/dvc").exists()
    assert (makefile / ".venv/bin/dvc").exists()


def test_gits_own_words_about_a_clone_of_somebody_else(makefile: Path) -> None:
    done = run(makefile, "make", "repro", GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert done.returncode != 0
    assert "detected dubious ownership" in done.stderr
    assert "safe.directory" in done.stderr
    assert "DVC needs a git repository" in done.stdout


def test_a_python_without_the_packages_says_what_to_do(tmp_path: Path) -> None:
    done = run(ROOT, sys.executable, "-S", "-m", "stages.split")
    assert done.returncode == 1
    assert "is not installed for" in done.stderr
    assert "source .venv/bin/activate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_dvc_takes_its_stage_with_it(tmp_path: Path, warm_python: None) -> None:
    project = copy_project(tmp_path, image_size=32, epochs=1)
    dvc(project, "repro", "balance")
    change_params(project / "params.yaml", epochs=5000)
    command = [sys.executable, "-m", "dvc", "repro", "train-mobilenetv2"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(project)}
    for shell in ("/bin/sh", "/bin/bash"):
        running = subprocess.Popen(
            command, cwd=project, env={**env, "SHELL": shell}, stdout=subprocess.DEVNULL
        )
        history = project / "plots/mobilenetv2/history.csv"
        history.unlink(missing_ok=True)
        while not history.exists():
            assert running.poll() is None
            time.sleep(0.1)
        assert stages_of(project)
        running.send_signal(signal.SIGKILL)
        running.wait()
        for _ in range(300):
            if not stages_of(project):
                break
            time.sleep(0.1)
        assert stages_of(project) == []


def stages_of(project: Path) -> list[int]:
    """List the processes of training stages that run in a project."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
            if b"stages.train" in line and (process / "cwd").resolve() == project.resolve():
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found
