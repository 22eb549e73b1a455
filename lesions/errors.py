"""The error a user can act on, and how a stage ends when it meets one."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import typer


class LesionsError(Exception):
    """Something a user can put right: names the file or key, what was found, what is allowed."""


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: the end is on its way
    raise KeyboardInterrupt  # a scheduler's SIGTERM unwinds like Ctrl-C, so partial files go


def run(*mains: Callable[..., None]) -> None:
    """Run a function as a command line, or several as its commands."""
    signal.signal(signal.SIGTERM, _terminate)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
    for main in mains:
        app.command()(_guarded(main))
    app()


def _guarded(main: Callable[..., None]) -> Callable[..., None]:
    """Make an error of ours or an interruption end `main` in one line."""

    @functools.wraps(main)
    def guarded(*arguments: object, **options: object) -> None:
        try:
            main(*arguments, **options)
        except LesionsError as error:
            sys.exit(f"error: {error}")
        except BrokenPipeError:  # whoever read the output has seen enough
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - nothing to flush into
            sys.exit(1)
        except OSError as error:  # what no other place foresaw: a folder that is a file, say
            sys.exit(f"error: {error.filename or 'a file'}: {error.strerror or error}")
        except KeyboardInterrupt:
            print("interrupted: nothing half-written is left behind", file=sys.stderr)
            sys.stdout.flush()
            # Not sys.exit, which waits for threads: see lesions/threads.py.
            os._exit(130)
        finally:
            # Nothing is left to unwind, and what runs at exit would print a traceback.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    return guarded
