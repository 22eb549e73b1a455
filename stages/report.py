"""Report: the last run as one page. No stage of dvc.yaml, for it tells the commit it was run at."""

from pathlib import Path
from typing import Annotated

import typer

from lesions.artifacts import write_text
from lesions.errors import run
from lesions.report import build

PAGE = Path("dvc_plots/report.html")


def main(models: Annotated[list[str], typer.Argument(help="The models, as evaluated.")]) -> None:
    """Write dvc_plots/report.html, which opens without a network."""
    write_text(PAGE, build(models))
    print(PAGE)


if __name__ == "__main__":
    run(main)
