"""Stages external@NAME: bring an external test set; only evaluate-external@NAME reads it."""

from typing import Annotated

import pandas as pd
import typer

from lesions.common import layout
from lesions.common.artifacts import atomic_write, write_csv
from lesions.common.params import load_params
from lesions.dataset.audit import identical_photos
from lesions.dataset.description import load_description
from lesions.dataset.metadata import join_groups, read_table
from lesions.dataset.photos import PhotoArray, resize
from lesions.sources.external_tests import find_external_test, leave_out_training_photos
from stages import external_test_name, run_stage


def main(
    name: Annotated[
        str | None,
        typer.Argument(help="Its name in `external_tests` in params.yaml; DVC's stage names it."),
    ] = None,
) -> None:
    """Fill data/external/NAME with test.csv, images.npy and image_ids.csv."""
    params = load_params()
    name = external_test_name(name)
    dataset = load_description(params.dataset)
    table, photos = find_external_test(params.external_test(name), dataset)
    known = [read_table(path, "image_id") for path in (layout.TRAIN_TABLE, layout.VAL_TABLE)]
    ids = pd.concat(known, ignore_index=True)["image_id"]
    with atomic_write(layout.external_folder(name), folder=True) as folder:
        readers = [(photo.place, photo.read) for photo in photos]
        resize(readers, params.image_size, folder / "images.npy")
        write_csv(folder / "image_ids.csv", table[["image_id"]])
        scaled = PhotoArray(folder)
        table = leave_out_training_photos(table, scaled, ids, PhotoArray(layout.RESIZED))
        # Photos with the same pixels count as one lesion: intervals resample lesions.
        write_csv(folder / "test.csv", join_groups(table, identical_photos(scaled, table)))
    print(f"external test set {name}: {len(table):,} photos")


if __name__ == "__main__":
    run_stage(main)
