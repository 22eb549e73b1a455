"""Rendering: how numbers and images are written into pages, and the environment of templates."""

import base64
import io
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml
from PIL import Image

FOLDER = Path(__file__).parent / "templates"


def number(value: float | None) -> str:
    """Write a number with three decimals and a true minus sign; a dash if it is undefined."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.3f}".replace("-", "−")


def share(value: float) -> str:
    """Write a share in percent without decimals."""
    return f"{value:.0%}".replace("%", " %")


def interval(
    row: "Mapping[str, Any] | pd.Series[Any]", low: str = "low", high: str = "high"
) -> str:
    """Write the interval of a row, given its columns; a dash if it is undefined."""
    ends = number(row[low]), number(row[high])
    return "–" if "–" in ends else " to ".join(ends)


def duration(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds.

    >>> duration(4262.4)
    '1:11:02'
    """
    return str(timedelta(seconds=round(seconds)))


def data_uri(kind: str, content: bytes) -> str:
    """Write the bytes of an image into a page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def image_uri(image: Image.Image, kind: str, **options: int) -> str:
    """Encode an image for a page; `kind` and `options` are pillow's, such as JPEG, quality=85."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return data_uri(kind.lower(), file.getvalue())


def environment(*folders: Path, autoescape: bool = False) -> jinja2.Environment:
    """Make the jinja2 environment for the templates of some folders and of FOLDER."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, FOLDER]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=autoescape,
    )
    made.filters.update(number=number, interval=interval, duration=duration, share=share)
    made.filters["yaml"] = lambda values: yaml.safe_dump(values, sort_keys=False)
    return made
