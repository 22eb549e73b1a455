"""External test sets: photos from other clinics, with a ground truth in ISIC's form."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.common.errors import LesionsError
from lesions.dataset.diagnoses import ISIC_COLUMNS
from lesions.dataset.metadata import clean_table, read_table
from lesions.sources import transfers
from lesions.sources.catalogue import ISIC2018, ISIC2018_WITHOUT_PHOTO, Archive
from lesions.sources.files import PhotoFile, by_name, photos_in_folder, photos_in_zips

KNOWN = "isic2018"  # the one external test set that is known by name


def find_external_test(
    source: str, archive: Archive = ISIC2018
) -> tuple[pd.DataFrame, list[PhotoFile]]:
    """Find the photos of an external test set and their diagnoses.

    Args:
        source: `isic2018`, or a folder with photos (or zip files of them) and one CSV file in
            ISIC's one-hot form.
        archive: what `isic2018` downloads.

    Returns:
        Columns image_id, lesion_id (the same, because ISIC names no lesions) and dx, sorted by
        image_id; and the file of each photo, in that order.

    Raises:
        LesionsError: it is not available, or photos and ground truth do not match.
    """
    if source == KNOWN:
        files = transfers.fetch(archive)
        truth = next(path for name, path in files.items() if name.endswith(".csv"))
        zips = [path for name, path in files.items() if name.endswith(".zip")]
        photos = list(photos_in_zips(zips))
    else:
        folder = Path(os.path.expanduser(source))  # noqa: PTH111
        if not folder.is_dir():
            raise LesionsError(f"external_tests: {source!r} is not a folder, and not {KNOWN}.")
        here = [file for file in sorted(folder.iterdir()) if file.is_file()]
        tables = [file for file in here if file.suffix.lower() == ".csv" and file.name[0] != "."]
        if len(tables) != 1:
            raise LesionsError(
                f"external_tests: {source!r} has {len(tables)} CSV files. Allowed are {KNOWN}, or "
                "the path of a folder with photos and one CSV file with the columns image,"
                + ",".join(ISIC_COLUMNS)
            )
        truth, photos = tables[0], list(photos_in_folder(folder))
    table = read_truth(truth)
    named = by_name(photos, table["image_id"])
    if source == KNOWN and ISIC2018_WITHOUT_PHOTO in set(table["image_id"]) - set(named):
        print(f"left out {ISIC2018_WITHOUT_PHOTO}, which the ground truth lists without a photo")
        table = table[table["image_id"] != ISIC2018_WITHOUT_PHOTO]
    missing = [image_id for image_id in table["image_id"] if image_id not in named]
    if missing:
        raise LesionsError(
            f"{truth}: {len(missing)} of {len(table)} photos are missing; the first is "
            f"{missing[0]}.jpg."
        )
    if source == KNOWN and len(table) != archive.photos:
        raise LesionsError(f"{archive.title}: {len(table)} photos instead of {archive.photos}.")
    return table, [named[image_id] for image_id in table["image_id"]]


def read_truth(path: Path) -> pd.DataFrame:
    """Read a ground truth in ISIC's one-hot form as image_id, lesion_id, dx.

    Raises:
        LesionsError: the columns are others, a photo is repeated, or a row is not one-hot.
    """
    table = clean_table(path, read_table(path))
    if list(table.columns) != ["image", *ISIC_COLUMNS]:
        raise LesionsError(
            f"{path}: columns {','.join(table.columns)}; expected image,{','.join(ISIC_COLUMNS)}."
        )
    if table["image"].duplicated().any() or table.empty:
        raise LesionsError(f"{path}: no rows, or an image in two rows. Keep one row per photo.")
    values = table[list(ISIC_COLUMNS)].apply(pd.to_numeric, errors="coerce").to_numpy()
    wrong = ~((values == 1).sum(axis=1) == 1) | ~np.isin(values, (0, 1)).all(axis=1)
    if wrong.any():
        image = table["image"].iloc[int(wrong.argmax())]
        raise LesionsError(f"{path}: row of {image}: one 1 and six 0 are expected.")
    dx = [ISIC_COLUMNS[index].lower() for index in values.argmax(axis=1)]
    ids = table["image"]
    found = pd.DataFrame({"image_id": ids, "lesion_id": ids, "dx": dx})
    return found.sort_values("image_id", ignore_index=True)


def leave_out_training_photos(
    table: pd.DataFrame, photos: list[PhotoFile], trained_on: pd.Series, raw_images: Path
) -> tuple[pd.DataFrame, list[PhotoFile]]:
    """Leave out photos that the networks were trained or validated on.

    Args:
        table, photos: from `find_external_test`.
        trained_on: the image_ids of training and validation.
        raw_images: the folder of their files.

    Returns:
        As `find_external_test`, without photos of the same image_id or the same bytes.

    Raises:
        LesionsError: no photo remains.
    """
    ids = set(trained_on)
    files = [path for path in sorted(raw_images.iterdir()) if path.stem in ids]
    by_size: dict[int, list[Path]] = {}
    for path in files:
        by_size.setdefault(path.stat().st_size, []).append(path)

    def known(photo: PhotoFile) -> bool:
        if photo.name in ids:
            return True
        same_size = by_size.get(photo.size, [])
        return bool(same_size) and photo.read() in {path.read_bytes() for path in same_size}

    keep = np.array([not known(photo) for photo in photos])
    if not keep.all():
        first = photos[int(keep.argmin())].place
        text = f"{(~keep).sum()} of {len(photos)} photos are training or validation photos"
        if not keep.any():
            raise LesionsError(f"{first}: {text}. This is not an external test set.")
        print(f"left out: {text}, {first} the first")
    kept = [photo for photo, kept in zip(photos, keep, strict=True) if kept]
    return table[keep].reset_index(drop=True), kept
