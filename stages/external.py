"""Stages external@NAME: bring an external test set; only evaluate-external@NAME reads it."""

from pathlib import Path
from typing import Annotated

import typer

from lesions.common.artifacts import atomic_write, write_csv
from lesions.common.params import load_params
from lesions.dataset.photos import resize
from lesions.sources.external_tests import find_external_test
from stages import run_stage


def main(
    name: Annotated[str, typer.Argument(help="Its name in `external_tests` in params.yaml.")],
) -> None:
    """Fill data/external/NAME with test.csv, images.npy and image_ids.csv."""
    params = load_params()
    table, photos = find_external_test(params.external_test(name))
    with atomic_write(Path(f"data/external/{name}"), folder=True) as folder:
        resize(photos, params.image_size, folder / "images.npy")
        write_csv(folder / "image_ids.csv", table[["image_id"]])
        write_csv(folder / "test.csv", table)
    print(f"external test set {name}: {len(table):,} photos")


if __name__ == "__main__":
    run_stage(main)
