"""Verify: the same commit and parameters give the same bytes, whichever way DVC runs them.

`make verify` copies the project, sets a small image size, and runs the pipeline several times:
twice in one place, in a second clone, after `dvc gc`, as an experiment, in a temporary folder and
from the queue. It prints the hashes that it compares. It takes about 5 minutes on two cores.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import typer
import yaml

SMALL = {"image_size": 64, "epochs": 2}
TIMED = "history.csv"  # has seconds, which differ from run to run


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder; its output is shown if it fails."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": "."}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def copy(target: Path, **changes: object) -> Path:
    """Clone the committed project and set parameters there."""
    run(Path.cwd(), "git", "clone", "--quiet", str(Path.cwd()), str(target))
    file = target / "params.yaml"
    values = {**yaml.safe_load(file.read_text()), **changes}
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    for key, value in (("user.name", "verify"), ("user.email", "verify@example.com")):
        run(target, "git", "config", key, value)
    run(target, "git", "commit", "--quiet", "--all", "--message", "small")
    return target


def outputs(folder: Path) -> dict[str, str]:
    """Hash every file of data/, models/, metrics/ and plots/ but the histories."""
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for top in ("data", "models", "metrics", "plots")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file()
        for name in [path.relative_to(folder).as_posix()]
        if path.name not in (TIMED, ".gitkeep")
    }


def summary(files: dict[str, str], top: str) -> str:
    """Hash the hashes under a folder into twelve hex digits."""
    lines = [f"{name} {digest}\n" for name, digest in files.items() if name.startswith(top)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def main() -> None:
    """Run the pipeline in every way and compare all outputs byte by byte."""
    with tempfile.TemporaryDirectory() as name:
        first, second = copy(Path(name) / "first", **SMALL), copy(Path(name) / "second", **SMALL)

        def experiment(*options: str) -> None:
            run(first, "dvc", "exp", "run", "--force", "--name", "again", *options)
            if options:
                if "--queue" in options:
                    run(first, "dvc", "queue", "start")
                    run(first, "dvc", "queue", "logs", "again", "--follow")
                run(first, "dvc", "exp", "apply", "again")
            run(first, "dvc", "exp", "remove", "again")

        def collected() -> None:
            run(first, "git", "add", "--all")
            run(first, "git", "commit", "--quiet", "--allow-empty", "--message", "run")
            run(first, "dvc", "gc", "--workspace", "--force")
            run(first, "dvc", "repro", "--force")

        ways: dict[str, tuple[Path, Callable[[], object]]] = {
            "dvc repro": (first, lambda: run(first, "dvc", "repro", "--force")),
            "dvc repro, again": (first, lambda: run(first, "dvc", "repro", "--force")),
            "in a second clone": (second, lambda: run(second, "dvc", "repro", "--force")),
            "after dvc gc": (first, collected),
            "dvc exp run": (first, experiment),
            "dvc exp run --temp": (first, lambda: experiment("--temp")),
            "dvc exp run --queue": (first, lambda: experiment("--queue")),
        }
        expected: dict[str, str] = {}
        differing = 0
        tops = ("data/", "models/", "metrics/", "plots/")
        print(f"{'':26}" + "".join(f"{top:>14}" for top in tops))
        for way, (folder, work) in ways.items():
            work()
            found = outputs(folder)
            expected = expected or found
            wrong = [
                file
                for file in sorted({*expected, *found})
                if expected.get(file) != found.get(file)
            ]
            differing += len(wrong)
            text = "".join(f"{summary(found, top):>14}" for top in tops)
            print(f"{way:26}{text}", flush=True)
            for file in wrong:
                print(f"  differs: {file}")
        print(f"{len(expected)} files, {len(ways)} runs, {differing} differ")
        sys.exit(differing > 0)


if __name__ == "__main__":
    typer.run(main)
