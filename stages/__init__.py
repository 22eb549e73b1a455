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


def external_test_name(typed: str | None) -> str:
    """Name the external test set that a stage is about.

    The command lines of dvc.yaml contain no name from params.yaml, because a shell would read it.

    Args:
        typed: on the command line; None for that of the stage which DVC runs, as `external@NAME`.

    Raises:
        LesionsError: neither names one.
    """
    name = typed or os.environ.get("DVC_STAGE", "").partition("@")[2]
    if not name:
        raise LesionsError("Name an external test set, as `external_tests` in params.yaml does.")
    return name
