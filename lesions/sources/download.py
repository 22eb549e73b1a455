"""Download: brings photos and metadata from the source to data/raw."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pandas as pd

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.common.progress import progress
from lesions.dataset.diagnoses import CODES
from lesions.dataset.metadata import read_metadata
from lesions.dataset.photos import Photo
from lesions.sources import sample, transfers
from lesions.sources.catalogue import HAM10000, KAGGLE_HANDLE, Archive
from lesions.sources.files import photos_in_folder, photos_in_zips

METADATA_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
LAYOUTS = (
    "A folder must have HAM10000_metadata.csv and the photos, as Kaggle gives them "
    "(HAM10000_images_part_1 and _2, full of .jpg files) or as Dataverse does "
    "(HAM10000_images_part_1.zip and _2.zip)."
)


def download(source: str, sample_seed: int, raw: Path, archive: Archive = HAM10000) -> None:
    """Fill a folder with `metadata.csv` and `images/<image_id>.jpg`.

    Args:
        source: as the parameter `source` in params.yaml.
        sample_seed: of the synthetic sample.
        raw: an empty folder.
        archive: what `dataverse` downloads; HAM10000, or a test's own table.

    Raises:
        LesionsError: the source is not available, or something in it is missing or wrong.
    """
    if source == "sample":
        sample.generate(sample_seed, raw)
    elif source == "dataverse":
        files = transfers.fetch(archive)
        zips = [path for name, path in files.items() if name.endswith(".zip")]
        metadata = read_metadata(files[METADATA_NAMES[0]])
        _copy_photos(metadata, "dataverse", photos_in_zips(zips), raw)
        _check_counts(metadata, archive)
    elif source == "kaggle":
        print(f"HAM10000, Kaggle\n  licence: {HAM10000.licence}\n  cite: {HAM10000.citation}")
        _check_counts(_copy_folder(_download_from_kaggle(), raw), HAM10000)
    else:
        _copy_folder(_check_folder(source), raw)


def _check_folder(source: str) -> Path:
    folder = Path(os.path.expanduser(source))  # noqa: PTH111 (keeps an unknown ~user)
    if not folder.is_dir():
        raise LesionsError(
            f"source: {source!r} is not a folder. Allowed are sample, dataverse, kaggle, or the "
            f"path of a folder. {LAYOUTS}"
        )
    return folder


def _download_from_kaggle() -> Path:
    """Download with kagglehub, anonymously: the user's credentials are not read."""
    import kagglehub

    secrets = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")
    with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ):
        for name in secrets:
            os.environ.pop(name, None)
        os.environ["KAGGLE_CONFIG_DIR"] = empty
        try:
            return Path(kagglehub.dataset_download(KAGGLE_HANDLE))
        except Exception as error:  # kagglehub's errors have no common base
            raise LesionsError(
                f"source: kaggle: {KAGGLE_HANDLE} cannot be downloaded ({error}). By hand: "
                f"download it from https://www.kaggle.com/datasets/{KAGGLE_HANDLE}, unpack it, and "
                "set source to its folder."
            ) from error


def _copy_folder(folder: Path, raw: Path) -> pd.DataFrame:
    """Copy the photos that a folder's metadata names; zip files need not be unpacked."""
    found = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if not found:
        raise LesionsError(f"{folder}: {METADATA_NAMES[0]} is missing. {LAYOUTS}")
    metadata = read_metadata(found[0])
    _copy_photos(metadata, str(folder), photos_in_folder(folder), raw)
    return metadata


def _copy_photos(metadata: pd.DataFrame, origin: str, photos: Iterable[Photo], raw: Path) -> None:
    """Write the photos that the metadata names, each once; file names come only from there."""
    readers = dict(photos)
    missing = [image_id for image_id in metadata["image_id"] if image_id not in readers]
    if missing:
        raise LesionsError(
            f"{origin}: {len(missing)} of the {len(metadata)} photos in the metadata are "
            f"missing; the first is {missing[0]}.jpg. {LAYOUTS}"
        )
    (raw / "images").mkdir()
    with progress(len(metadata), "photos", "copy to data/raw") as bar:
        for image_id in metadata["image_id"]:
            data = readers[image_id]()
            if not data:
                raise LesionsError(f"{origin}: {image_id}.jpg is empty. Download it again.")
            (raw / "images" / f"{image_id}.jpg").write_bytes(data)
            bar.update()
    write_csv(raw / "metadata.csv", metadata)
    if unnamed := len(readers) - len(metadata):
        print(f"{origin}: left out {unnamed} photos that the metadata does not name")


def _check_counts(metadata: pd.DataFrame, archive: Archive) -> None:
    """Compare the numbers of photos and lesions with the published ones."""
    counts = metadata["dx"].value_counts()
    found = {"photos": len(metadata), "lesions": metadata["lesion_id"].nunique()}
    found |= {code: int(counts.get(code, 0)) for code in CODES}
    expected = {"photos": archive.photos, "lesions": archive.lesions, **(archive.counts or {})}
    wrong = [
        f"{found[name]} {name} instead of {count}"
        for name, count in expected.items()
        if count is not None and found[name] != count
    ]
    if wrong:
        raise LesionsError(f"{archive.title}: {'; '.join(wrong)}. Nothing was kept.")
