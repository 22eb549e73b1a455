"""The batch scripts on a real Slurm, which runs on this machine for the time of the tests."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from helpers import change_params, commit, copy_project, dvc, git, run

from lesions.networks.model_file import read_card

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "srun")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)) or not hasattr(os, "getuid") or os.getuid() != 0,
        reason="Slurm is not here, or we may not start it: apt-get install slurm-wlm, as root",
    ),
]
CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
# As long a job that is interrupted waits before it starts again; the default is two minutes.
AuthInfo=cred_expire=15
CryptoType=crypto/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_ports() -> list[int]:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in (first, second)]


def until(done: Callable[[], bool], seconds: float = 240) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of one node with two cores."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    file = folder / "slurm.conf"
    file.write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(file))
        running = []
        for program in ("slurmctld", "slurmd"):
            with (folder / f"{program}.log").open("wb") as log:
                command = [program, "-D", "-f", str(file)]
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        try:
            command = ["sinfo", "--noheader", "--format=%t"]
            until(lambda: subprocess.run(command, capture_output=True).stdout.strip() == b"idle")
            yield
        finally:
            for process in running[::-1]:
                process.terminate()
                process.wait(30)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, warm_python: None) -> Path:
    """A project whose photos are prepared, with this environment; not to be changed."""
    project = copy_project(tmp_path_factory.mktemp("prepared"), image_size=32, epochs=4)
    (project / ".venv").symlink_to(sys.prefix)
    dvc(project, "repro", "balance")
    commit(project, "prepared")
    return project


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: None) -> Path:
    """A copy of it, and a Slurm to use."""
    project = tmp_path / "project"
    shutil.copytree(prepared, project, symlinks=True)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return project


def submitted(place: Path, *arguments: str) -> str:
    """Submit a job and return its number."""
    return run(place, "sbatch", "--parsable", *arguments).strip()


def is_over(job: str) -> bool:
    """Say whether no task of a job waits or runs."""
    command = ["squeue", "--noheader", "--states=all", "--format=%T", "--job", job]
    states = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return bool(states) and set(states) <= {"COMPLETED", "FAILED"}


def test_a_sweep_survives_an_interruption_with_the_same_bytes(place: Path) -> None:
    (place / "sweep.txt").write_text("lr=0.01\nlr=0.003 schedule=cosine\n")
    script = ["cluster/experiments.sbatch", "sweep.txt", "train-mobilenetv2"]
    job = submitted(place, "--array=1-2", *script)
    log = place / f"lesions-{job}_2.log"
    until(lambda: log.exists() and "epoch 1/4" in log.read_text())
    run(place, "scancel", "--signal=TERM", "--batch", f"{job}_2")
    until(lambda: "it waits again" in log.read_text())
    until(lambda: is_over(job))
    assert "mobilenetv2: resumes after epoch" in log.read_text()

    # Both are in the project, each with what it changed; no test photo was read.
    listed = dvc(place, "exp", "list", "--name-only").split()
    assert sorted(listed) == [f"lesions-{job}-1", f"lesions-{job}-2"]
    locks = [yaml.safe_load(git(place, "show", f"refs/exps/{ref}:dvc.lock")) for ref in refs(place)]
    assert "stages.evaluate" not in log.read_text()
    table = run(place, sys.executable, "-m", "lesions.commands", "compare", "mobilenetv2")
    assert f"lesions-{job}-2  lr=0.003 schedule=cosine" in table
    assert not list(place.parent.glob("lesions-*"))  # the clones are gone

    # The same bytes as a training that nobody has interrupted.
    outs = [out for lock in locks for out in lock["stages"]["train-mobilenetv2"]["outs"]]
    digests = {out["md5"] for out in outs if out["path"] == "models/mobilenetv2.safetensors"}
    change_params(place / "params.yaml", lr=0.003, schedule="cosine")
    run(place, sys.executable, "-m", "stages.train", "mobilenetv2")
    undisturbed = run(place, "md5sum", "models/mobilenetv2.safetensors").split()[0]
    assert undisturbed in digests
    assert len(digests) == 2


def refs(place: Path) -> list[str]:
    """List the references of all experiments, below refs/exps."""
    command = ("for-each-ref", "--format=%(refname:lstrip=2)", "refs/exps")
    return [name for name in git(place, *command).split() if "/lesions-" in name]


def test_a_table_without_the_line_and_another_stage_are_refused(place: Path) -> None:
    (place / "sweep.txt").write_text("lr=0.01\n")
    for array, stage, words in (
        ("2", "train-resnet50", "sweep.txt: has no line 2"),
        ("1", "evaluate", "evaluate: only training stages are run"),
    ):
        script = ["cluster/experiments.sbatch", "sweep.txt", stage]
        job = submitted(place, f"--array={array}", *script)
        until(lambda job=job: is_over(job))  # type: ignore[misc]
        assert words in (place / f"lesions-{job}_{array}.log").read_text()


def test_one_training_over_two_tasks(place: Path) -> None:
    script = ["cluster/train.sbatch", "mobilenetv2"]
    job = submitted(place, "--ntasks=2", "--ntasks-per-node=2", *script)
    until(lambda: is_over(job))
    log = (place / f"lesions-train-{job}.log").read_text()
    card = read_card(place / "models/mobilenetv2.safetensors")
    assert card.device.startswith("2 × cpu"), log
    assert log.count("epoch 4/4") == 1
