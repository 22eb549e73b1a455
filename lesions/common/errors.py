"""The error a user can act on, and how a command ends when it meets one."""

import contextlib
import errno
import functools
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import typer

from lesions.common.names import safe_text


class LesionsError(Exception):
    """An error that the user can fix: names the file or key, what was found, what is allowed."""


def is_interruption(error: BaseException | None) -> bool:
    """Say whether this is Ctrl-C or SIGTERM, or was raised while one of them was handled.

    An interruption inside one of Python's own locks (`threading.Condition`) is followed by
    "RuntimeError: release unlocked lock", measured for 7 of 1,500 stages.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


# What torch says, on CUDA, MPS and the CPU, if memory runs out.
_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error was raised because memory ran out, of a GPU or of the computer."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    torchs = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    return torchs or isinstance(error, MemoryError)


def out_of_memory(error: BaseException) -> LesionsError:
    """Say what to do about it."""
    what = str(error).partition("\n")[0].partition(". GPU")[0].rstrip(".") or "out of memory"
    return LesionsError(
        f"{what}. Lower batch_size or image_size, end other programs that use the memory, or set "
        "device: cpu."
    )


CLEAN_UP = 5.0  # seconds after a SIGTERM in which another one does not disturb the clean-up
_last_sigterm = -CLEAN_UP


def _raise_interrupt(signum: int, frame: FrameType | None) -> None:
    """Make SIGTERM, as a scheduler sends it, unwind like Ctrl-C, so that partial files go.

    Python loses an exception that is raised within some callbacks of its own (1 of 1,500 times), so
    a later SIGTERM counts again.
    """
    global _last_sigterm
    now = time.monotonic()
    if now - _last_sigterm >= CLEAN_UP:
        _last_sigterm = now
        raise KeyboardInterrupt


def command_line(*commands: Callable[..., None]) -> typer.Typer:
    """Make a command line of one function, or of several as its commands."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
    for command in commands:
        app.command()(_with_one_line_errors(command))
    return app


def print_all_letters() -> None:
    """Let a terminal or pipe whose encoding lacks a letter get its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run_cli(*commands: Callable[..., None]) -> None:
    """Run functions as a command line."""
    signal.signal(signal.SIGTERM, _raise_interrupt)
    print_all_letters()
    command_line(*commands)()


def _fail(message: str) -> NoReturn:
    print(f"error: {safe_text(message)}", file=sys.stderr)
    sys.exit(1)


def _end(error: BaseException) -> NoReturn:
    """End the process with one line for an expected error or an interruption; raise any other."""
    if is_interruption(error):
        with contextlib.suppress(OSError):  # whoever read the output may be gone
            print("interrupted: no half-written file is left", file=sys.stderr)
            sys.stdout.flush()
        # Not sys.exit, which waits for threads: see lesions/common/threads.py.
        os._exit(130)
    if isinstance(error, LesionsError):
        _fail(str(error))
    if is_out_of_memory(error):
        _fail(str(out_of_memory(error)))
    if isinstance(error, BrokenPipeError):  # the reader of the output, e.g. head, has closed it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - so that exit can flush
        sys.exit(1)
    if isinstance(error, OSError):  # not foreseen, for example a file where a folder is needed
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    raise error


def _with_one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Make an expected error or an interruption end `command` with one line."""

    @functools.wraps(command)
    def wrapped(*arguments: object, **options: object) -> None:
        try:
            command(*arguments, **options)
        except BaseException as error:
            _end(error)
        finally:
            # From here on a SIGTERM ends the process at once: nothing is left to clean up.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    return wrapped
