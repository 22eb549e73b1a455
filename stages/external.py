"""Stage external: a test set from elsewhere, scaled; split and training never see it."""

from pathlib import Path

from lesions.artifacts import replacing, write_csv
from lesions.errors import run
from lesions.params import load_params
from lesions.photos import resize
from lesions.sources import external


def main() -> None:
    """Fill data/external with test.csv, images.npy and image_ids.csv, or, with `none`, nothing."""
    params = load_params()
    with replacing(Path("data/external"), folder=True) as folder:
        if params.external_test == "none":
            return
        table, photos = external(params.external_test)
        resize(photos, params.image_size, folder / "images.npy")
        write_csv(folder / "image_ids.csv", table[["image_id"]])
        write_csv(folder / "test.csv", table)
        print(f"{params.external_test}: {len(table)} photos")


if __name__ == "__main__":
    run(main)
