"""Stage resize: every photo decoded once, to one array of small pixels."""

from pathlib import Path

import pandas as pd

from lesions.artifacts import replacing, write_csv
from lesions.errors import run
from lesions.params import load_params
from lesions.photos import resize


def main() -> None:
    """Scale data/raw/images to image_size and write data/resized/images.npy and image_ids.csv."""
    params = load_params()
    paths = sorted(Path("data/raw/images").glob("*.jpg"))
    with replacing(Path("data/resized"), folder=True) as resized:
        resize(
            [(str(path), path.read_bytes) for path in paths],
            params.image_size,
            resized / "images.npy",
        )
        write_csv(
            resized / "image_ids.csv", pd.DataFrame({"image_id": [path.stem for path in paths]})
        )


if __name__ == "__main__":
    run(main)
