"""The stages of the pipeline: one command line each, `python -m stages.<name>` from the root."""

import os
import sys
from collections.abc import Callable

try:
    from lesions.common.errors import LesionsError, print_all_letters, run_cli
    from stages.changes import changed_parameters
    from stages.watch import end_with_dvc
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error.name} is not installed for {sys.executable}. Activate the environment of "
        "the project (source .venv/bin/activate), or use make."
    )


def run_stage(main: Callable[..., None]) -> None:
    """Run a stage's function as a command line; say first how its parameters differ from HEAD."""
    end_with_dvc()
    print_all_letters()
    if changes := changed_parameters():
        print(f"differs from the last commit: {', '.join(changes)}", flush=True)
    run_cli(main)


def entry_of(name: str | None, kind: str) -> str:
    """Name the entry of a table in params.yaml that a stage is about.

    The command lines of dvc.yaml contain no name, because a shell would read it.

    Args:
        name: as typed, or None for the one of the stage that DVC runs, as in `external@NAME`.
        kind: what it is, for the message.

    Raises:
        LesionsError: neither names one.
    """
    found = name or os.environ.get("DVC_STAGE", "").partition("@")[2]
    if not found:
        raise LesionsError(f"Name one {kind}, as params.yaml names it.")
    return found
