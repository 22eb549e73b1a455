"""The error a user can act on, and how a stage ends when it meets one."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import typer


class LesionsError(Exception):
    """Something a user can put right: names the file or key, what was found, what is allowed."""


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt  # a scheduler's SIGTERM unwinds like Ctrl-C, so partial files go


def run(main: Callable[..., None]) -> None:
    """Run `main` as a command line; a `LesionsError` or an interruption ends it in one line."""
    signal.signal(signal.SIGTERM, _terminate)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app(standalone_mode=False)
    except LesionsError as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: nothing half-written is left behind", file=sys.stderr)
        sys.exit(130)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
