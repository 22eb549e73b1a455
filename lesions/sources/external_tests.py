"""External test sets: photos from other clinics, in any layout that a folder may have."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from lesions.common.errors import LesionsError
from lesions.common.names import safe_text
from lesions.common.types import Rows
from lesions.dataset.description import Description
from lesions.dataset.photos import PhotoArray
from lesions.sources import transfers
from lesions.sources.catalogue import ISIC2018, Archive
from lesions.sources.files import PhotoFile, photos_in_zips
from lesions.sources.folders import LAYOUTS, as_metadata, combine, read_folder

KNOWN = "isic2018"  # the one external test set that is known by name
THUMBNAIL = 32  # pixels a side, for the comparison with known photos
# Root mean square differences of grey values. Of HAM10000's photos (384×288), a copy that was saved
# again (JPEG of quality 60 to 90, at a third to all of its size; 300 photos each) differs from the
# original by at most 2.3; the nearest two photos of different lesions by 5.9.
COPY = 4.0
SAME_NAME = 10.0  # for one name; of 100 photos, 3 have another lesion's that near
CHUNK = 4096  # known photos at a time, so that memory stays constant


def find_external_test(
    source: str, dataset: Description, archive: Archive = ISIC2018
) -> tuple[pd.DataFrame, list[PhotoFile]]:
    """Find the photos of an external test set and their classes.

    Args:
        source: `isic2018`, or a folder as `read_folder` reads it.
        dataset: names the classes.
        archive: what `isic2018` downloads.

    Returns:
        The metadata (image_id, lesion_id, dx and what else is known), sorted by image_id; and the
        file of each photo, in that order.

    Raises:
        LesionsError: it is not available, or photos and table do not match.
    """
    if source == KNOWN:
        files = transfers.fetch(archive)
        truth = [path for name, path in files.items() if name.endswith(".csv")]
        zips = [path for name, path in files.items() if name.endswith(".zip")]
        content = combine(KNOWN, list(photos_in_zips(zips)), truth, {})
    else:
        folder = Path(os.path.expanduser(source))  # noqa: PTH111
        if not folder.is_dir():
            raise LesionsError(
                f"external_tests: {source!r} is not a folder, and not {KNOWN}. {LAYOUTS}"
            )
        content = read_folder(folder, dataset.columns)
    for note in content.notes:
        print(safe_text(note))
    table = as_metadata(content, dataset)
    if source == KNOWN and len(table) != archive.photos:
        raise LesionsError(f"{archive.title}: {len(table)} photos instead of {archive.photos}.")
    return table, [content.files[image_id] for image_id in table["image_id"]]


def leave_out_training_photos(
    table: pd.DataFrame, photos: PhotoArray, trained_on: pd.Series, known: PhotoArray
) -> pd.DataFrame:
    """Leave out photos that the networks were trained or validated on.

    Args:
        table: from `find_external_test`.
        photos: its photos, scaled.
        trained_on: the image_ids of training and validation.
        known: their photos, scaled to the same size.

    Returns:
        The table without photos whose pixels are nearly those of a known one: copies, saved again
        or scaled, under any name; and those of the same name that look alike.

    Raises:
        LesionsError: no photo remains.
    """
    own = thumbnails(photos, photos.rows(table["image_id"]))
    distances = np.full(len(table), np.inf)
    alike = np.zeros(len(table), dtype=bool)
    names = table["image_id"].map(_name)
    for start in range(0, len(trained_on), CHUNK):
        part = trained_on[start : start + CHUNK]
        others = thumbnails(known, known.rows(part))
        to_each = _distances(own, others)
        distances = np.minimum(distances, to_each.min(axis=1))
        same_name = names.to_numpy()[:, None] == part.map(_name).to_numpy()[None]
        alike |= (same_name & (to_each < SAME_NAME)).any(axis=1)
    left_out = (distances < COPY) | alike
    if left_out.any():
        first = table["image_id"].iloc[int(left_out.argmax())]
        text = f"{left_out.sum()} of {len(table)} photos are training or validation photos"
        if left_out.all():
            raise LesionsError(f"{first}: {text}. This is not an external test set.")
        print(f"left out: {text}, {first} the first")
    return table[~left_out].reset_index(drop=True)


def thumbnails(photos: PhotoArray, rows: Rows) -> npt.NDArray[np.float32]:
    """Shrink some photos to THUMBNAIL pixels a side: (n, 3 × THUMBNAIL²), grey values around 0."""
    size = (THUMBNAIL, THUMBNAIL)
    small = [
        np.asarray(Image.fromarray(photos.images[row]).resize(size, Image.Resampling.BOX))
        for row in rows
    ]
    return np.stack(small).reshape(len(rows), -1).astype(np.float32) - 128


def _distances(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Compute the root mean square difference of all pairs: (n, f) and (m, f) to (n, m)."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    distances: npt.NDArray[np.float32] = np.sqrt(np.maximum(squares, 0) / first.shape[1])
    return distances


def _name(image_id: str) -> str:
    """Take the folders from an image_id, and its capitals."""
    return image_id.rpartition("/")[2].casefold()
