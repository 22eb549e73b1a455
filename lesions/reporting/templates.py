"""Templates: how numbers and metrics are written for people."""

from datetime import timedelta
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from lesions.evaluation.metrics import TITLES

FOLDER = Path(__file__).parent / "templates"


def number(value: float) -> str:
    """Write a number with three decimals and a true minus sign; a dash if it is undefined."""
    return "–" if not np.isfinite(value) else f"{value:.3f}".replace("-", "−")


def interval(row: "pd.Series[float]") -> str:
    """Write the low and high of a row; a dash if they are undefined."""
    return f"{number(row['low'])} to {number(row['high'])}" if np.isfinite(row["low"]) else "–"


def duration(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds.

    >>> duration(4262.4)
    '1:11:02'
    """
    return str(timedelta(seconds=round(seconds)))


def environment(folder: Path = FOLDER, autoescape: bool = False) -> jinja2.Environment:
    """Make the jinja2 environment for the templates of a folder."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=autoescape,
    )
    made.filters.update(number=number, interval=interval, duration=duration)
    made.filters["metric"] = lambda name: TITLES.get(name, name.replace("_", " "))
    return made
