"""Other programs: git and DVC, run for what they print."""

import subprocess
import sys

from lesions.common.errors import LesionsError


def run_git(*arguments: str) -> str:
    """Run git and return what it prints.

    Raises:
        LesionsError: git is missing or fails; with its own words.
    """
    return _run(["git"], arguments)


def run_dvc(*arguments: str) -> str:
    """Run DVC and return what it prints; the rest is as for `run_git`."""
    # In UTF-8 everywhere: on Windows a pipe has another encoding.
    return _run([sys.executable, "-X", "utf8", "-m", "dvc"], arguments)


def _run(program: list[str], arguments: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [*program, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            check=False,
        )
    except OSError as error:
        raise LesionsError(f"{program[0]}: {error.strerror}.") from None
    if done.returncode:
        name = " ".join((program[-1], *arguments))
        raise LesionsError(f"`{name}` failed: {done.stderr.strip()}")
    return done.stdout
