"""One progress bar: redrawn in a terminal, one line every half minute in a log file."""

import os
import sys
from typing import Any

from tqdm import tqdm


class _LineWriter:
    """Turns tqdm's carriage returns into lines, for a stderr that is not a terminal."""

    def write(self, text: str) -> None:
        if text := text.strip("\r\n"):
            print(text, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def progress(total: int, unit: str, label: str) -> "tqdm[Any]":
    """Return a bar to `update(n)`: count, rate in `unit`/s and time left; bytes as kB, MB, GB."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        unit=unit if unit == "B" else f" {unit}",
        unit_scale=unit == "B",
        desc=label,
        file=sys.stderr if terminal else _LineWriter(),
        mininterval=0.5 if terminal else 30,
        delay=0 if terminal else 1,
        dynamic_ncols=terminal,
        ncols=None if terminal else 100,
        leave=not terminal,
        # Only the first of the processes that torchrun starts shows a bar.
        disable="TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0",
    )
