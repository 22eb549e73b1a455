"""Stage resize: decodes every photo once, into one array of small pixels."""

from functools import partial

import pandas as pd

from lesions.common import layout
from lesions.common.artifacts import atomic_write, is_clutter, write_csv
from lesions.common.params import load_params
from lesions.dataset.photos import ENDINGS, image_id_of, read_file, resize
from stages import run_stage


def main() -> None:
    """Scale data/raw/images to image_size; write data/resized/images.npy and image_ids.csv."""
    params = load_params()
    folder = layout.RAW_IMAGES
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    paths = [path for path in files if path.suffix.lower() in ENDINGS and not is_clutter(path.name)]
    photos = [(str(path), partial(read_file, path)) for path in paths]
    image_ids = pd.DataFrame({"image_id": [image_id_of(path) for path in paths]})
    with atomic_write(layout.RESIZED, folder=True) as resized:
        resize(photos, params.image_size, resized / "images.npy")
        write_csv(resized / "image_ids.csv", image_ids)
    print(f"resize: {len(paths):,} photos to {params.image_size}×{params.image_size} pixels")


if __name__ == "__main__":
    run_stage(main)
