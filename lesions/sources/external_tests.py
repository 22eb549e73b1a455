"""External test sets: photos from other clinics, in any layout that a folder may have."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.common.errors import LesionsError
from lesions.common.names import safe_text
from lesions.dataset.description import Description
from lesions.dataset.photos import decode, image_id_of
from lesions.sources import transfers
from lesions.sources.catalogue import ISIC2018, Archive
from lesions.sources.files import PhotoFile, photos_in_zips
from lesions.sources.folders import LAYOUTS, as_metadata, combine, read_folder

KNOWN = "isic2018"  # the one external test set that is known by name


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
    table: pd.DataFrame, photos: list[PhotoFile], trained_on: pd.Series, raw_images: Path
) -> tuple[pd.DataFrame, list[PhotoFile]]:
    """Leave out photos that the networks were trained or validated on.

    Args:
        table, photos: from `find_external_test`.
        trained_on: the image_ids of training and validation.
        raw_images: the folder of their files.

    Returns:
        As `find_external_test`, without photos of the same bytes, or of the same name (in capitals
        or not) and nearly the same pixels: a copy in another size.

    Raises:
        LesionsError: no photo remains.
    """
    ids = set(trained_on)
    by_size: dict[int, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(raw_images.iterdir()):
        if (image_id := image_id_of(path)) in ids:
            by_size.setdefault(path.stat().st_size, []).append(path)
            by_stem.setdefault(image_id.rpartition("/")[2].casefold(), []).append(path)

    def known(photo: PhotoFile) -> bool:
        namesakes = by_stem.get(photo.name.casefold(), [])
        if not (paths := [*by_size.get(photo.size, []), *namesakes]):
            return False
        data = photo.read()
        return any(path.read_bytes() == data for path in paths) or any(
            _look_equal(data, path.read_bytes(), photo.place) for path in namesakes
        )

    keep = np.array([not known(photo) for photo in photos])
    if not keep.all():
        first = photos[int(keep.argmin())].place
        text = f"{(~keep).sum()} of {len(photos)} photos are training or validation photos"
        if not keep.any():
            raise LesionsError(f"{first}: {text}. This is not an external test set.")
        print(f"left out: {text}, {first} the first")
    kept = [photo for photo, kept in zip(photos, keep, strict=True) if kept]
    return table[keep].reset_index(drop=True), kept


def _look_equal(first: bytes, second: bytes, name: str) -> bool:
    """Say whether two photos of one name are one, perhaps in two sizes.

    Of HAM10000, two sizes of a photo differ by at most 4.0 grey values on average, two photos by at
    least 10.8 (1,400 pairs each, scaled to 32 × 32 pixels).
    """
    one, other = (decode(data, 32, name).astype(np.int16) for data in (first, second))
    return bool(np.abs(one - other).mean() < 8)
