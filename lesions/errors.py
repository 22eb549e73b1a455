"""The error a user can act on, and how a stage ends when it meets one."""

import functools
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
    """Run `main` as a command line; an error of ours or an interruption ends it in one line."""

    @functools.wraps(main)
    def guarded(*arguments: object, **options: object) -> None:
        try:
            main(*arguments, **options)
        except LesionsError as error:
            sys.exit(f"error: {error}")
        except OSError as error:  # what no other place foresaw: a folder that is a file, say
            sys.exit(f"error: {error.filename or 'a file'}: {error.strerror or error}")
        except KeyboardInterrupt:
            print("interrupted: nothing half-written is left behind", file=sys.stderr)
            sys.exit(130)

    signal.signal(signal.SIGTERM, _terminate)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(guarded)
    app()
