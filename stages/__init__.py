"""The stages of the pipeline: one command line each, `python -m stages.<name>` from the root."""

from collections.abc import Callable

from lesions.common.errors import run_cli
from stages.changes import changed_parameters


def run_stage(main: Callable[..., None]) -> None:
    """Run a stage's function as a command line; say first how its parameters differ from HEAD."""
    if changes := changed_parameters():
        print(f"differs from the last commit: {', '.join(changes)}", flush=True)
    run_cli(main)
