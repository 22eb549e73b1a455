"""Download: gets photos and metadata from the source."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pandas as pd

from lesions.common.errors import LesionsError
from lesions.common.names import safe_text
from lesions.common.progress import progress
from lesions.dataset.diagnoses import CODES
from lesions.dataset.metadata import read_metadata
from lesions.sources import sample, transfers
from lesions.sources.catalogue import HAM10000, KAGGLE_HANDLE, Archive
from lesions.sources.files import PhotoFile, by_name, photos_in_folder, photos_in_zips

METADATA_NAMES = (
    *("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab"),
    "metadata.csv",
)
LAYOUTS = (
    "A folder must have HAM10000_metadata.csv (or metadata.csv) and the photos, in folders as "
    "Kaggle gives them, or in zip files as Dataverse does."
)


def download(
    source: str, sample_seed: int, images: Path, archive: Archive = HAM10000
) -> pd.DataFrame:
    """Fill a folder with photos, `<image_id>.jpg` (or with the ending that they have).

    Args:
        source: as the parameter `source` in params.yaml.
        sample_seed: of the synthetic sample.
        images: an empty folder.
        archive: what `dataverse` downloads; HAM10000, or a test's own table.

    Returns:
        The metadata, as `read_metadata`.

    Raises:
        LesionsError: the source is not available, or something in it is missing or wrong.
    """
    if source == "sample":
        return sample.generate_photos(sample_seed, images)
    if source == "dataverse":
        files = transfers.fetch(archive)
        zips = [path for name, path in files.items() if name.endswith(".zip")]
        metadata = read_metadata(files[METADATA_NAMES[0]])
        _copy_photos(metadata, "dataverse", photos_in_zips(zips), images)
        _check_counts(metadata, archive)
        return metadata
    if source == "kaggle":
        print(f"HAM10000, Kaggle\n  licence: {HAM10000.licence}\n  cite: {HAM10000.citation}")
        metadata = _copy_folder(_download_from_kaggle(), images)
        _check_counts(metadata, HAM10000)
        return metadata
    return _copy_folder(_check_folder(source), images)


def _check_folder(source: str) -> Path:
    folder = Path(os.path.expanduser(source))  # noqa: PTH111 (keeps an unknown ~user)
    if not folder.is_dir():
        raise LesionsError(
            f"source: {source!r} is not a folder (looked for in {Path.cwd()}; experiments with "
            "--temp or --queue run in a copy of the project, so give a path from / on). Allowed "
            f"are sample, dataverse, kaggle, or the path of a folder. {LAYOUTS}"
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


def _copy_folder(folder: Path, images: Path) -> pd.DataFrame:
    """Copy the photos that a folder's metadata names; zip files need not be unpacked."""
    path = find_metadata(folder)
    if path is None:
        raise LesionsError(f"{folder}: {METADATA_NAMES[0]} is missing. {LAYOUTS}")
    metadata = read_metadata(path)
    _copy_photos(metadata, str(folder), photos_in_folder(folder), images)
    return metadata


def find_metadata(folder: Path) -> Path | None:
    """Find the metadata table in a folder, if it has one.

    Raises:
        LesionsError: it has several that differ.
    """
    found = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if len({path.read_bytes() for path in found}) > 1:
        names = ", ".join(path.name for path in found)
        raise LesionsError(f"{folder}: {names} differ. Keep the right one.")
    return found[0] if found else None


def _copy_photos(
    metadata: pd.DataFrame, origin: str, photos: Iterable[PhotoFile], images: Path
) -> None:
    """Write the photos that the metadata names, each once; file names come only from there."""
    photos = list(photos)
    named = by_name(photos, metadata["image_id"])
    missing = [image_id for image_id in metadata["image_id"] if image_id not in named]
    if missing:
        raise LesionsError(
            f"{origin}: {len(missing)} of the {len(metadata)} photos in the metadata are "
            f"missing; the first is {missing[0]}.jpg. {LAYOUTS}"
        )
    with progress(len(metadata), "photos", "copy to data/raw") as bar:
        for image_id in metadata["image_id"]:
            data = named[image_id].read()
            if not data:
                raise LesionsError(f"{named[image_id].place}: is empty. Download it again.")
            (images / f"{image_id}{named[image_id].ending}").write_bytes(data)
            bar.update()
    if unnamed := sorted({photo.name for photo in photos} - set(named)):
        print(
            f"{origin}: left out {len(unnamed)} photos that the metadata does not name, "
            f"{safe_text(unnamed[0])} the first"
        )


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
