"""Download: gets photos and metadata from the source."""

import contextlib
import os
import tempfile
from pathlib import Path
from unittest import mock

import pandas as pd

from lesions.common.errors import LesionsError
from lesions.common.names import safe_text
from lesions.common.params import SYNTHETIC
from lesions.common.progress import progress
from lesions.common.user_cache import user_cache
from lesions.dataset.description import Description
from lesions.dataset.photos import file_name
from lesions.sources import sample, teaching, transfers
from lesions.sources.catalogue import HAM10000, KAGGLE_HANDLE, Archive
from lesions.sources.files import photos_in_zips
from lesions.sources.folders import (
    LAYOUTS,
    METADATA_NAMES,
    Content,
    as_metadata,
    combine,
    read_folder,
)


def download(
    source: str,
    sample_seed: int,
    sample_size: int,
    dataset: Description,
    images: Path,
    archive: Archive = HAM10000,
) -> pd.DataFrame:
    """Fill a folder with photos, `<image_id>.jpg` (or with the ending that they have).

    Args:
        source: as the parameter `source` in params.yaml.
        sample_seed: of a synthetic sample.
        sample_size: about how many photos the teaching sample has.
        dataset: names the classes and the tables' columns.
        images: an empty folder.
        archive: what `dataverse` downloads; HAM10000, or a test's own table.

    Returns:
        The metadata, as `read_metadata`.

    Raises:
        LesionsError: the source is not available, or something in it is missing or wrong.
    """
    if source in SYNTHETIC:
        if unknown := sorted(set(sample.LESIONS) - set(dataset.classes)):
            raise LesionsError(
                f"source: {source} has the classes of HAM10000, but {dataset.title} lacks "
                f"{', '.join(unknown)}. Name the folder of your photos: -S source=FOLDER."
            )
        if source == "teaching":
            return teaching.generate_photos(sample_seed, sample_size, images)
        return sample.generate_photos(sample_seed, images)
    if source == "dataverse":
        files = transfers.fetch(archive)
        zips = [path for name, path in files.items() if name.endswith(".zip")]
        table = files[METADATA_NAMES[0]]
        content = combine("dataverse", list(photos_in_zips(zips)), [table], dataset.columns)
        return _copy(content, dataset, images, archive)
    if source == "kaggle":
        print(f"HAM10000, Kaggle\n  licence: {HAM10000.licence}\n  cite: {HAM10000.citation}")
        content = read_folder(_download_from_kaggle(), dataset.columns)
        return _copy(content, dataset, images, HAM10000)
    return _copy(read_folder(find_folder(source), dataset.columns), dataset, images)


def expected_photos(
    source: str, sample_size: int, dataset: Description
) -> tuple[dict[str, int], str]:
    """Count the photos of each class of a source, before anything is downloaded or copied.

    Returns:
        The counts, and what the stage download will get and from where.

    Raises:
        LesionsError: the source is not there, or not photos of the dataset.
    """
    if source == "sample":
        kinds = sample.LESIONS.items()
        photos = {code: sum(n * k for n, k in enumerate(views, 1)) for code, views in kinds}
        return photos, f"{sum(photos.values())} synthetic photos"
    if source == "teaching":
        photos = teaching.counts(sample_size)
        return photos, f"{sum(photos.values()):,} synthetic photos"
    if source == "dataverse":
        size = sum(file.size or 0 for file in HAM10000.files) / 1e9
        fetched = f"{size:.1f} GB from dataverse.harvard.edu, once, into {user_cache()}"
        return dict(HAM10000.counts or {}), fetched
    if source == "kaggle":
        return dict(HAM10000.counts or {}), "5.2 GB from kaggle.com, once, into kagglehub's cache"
    folder = find_folder(source)
    with contextlib.redirect_stdout(None):  # the run will say what is assumed and left out
        labels = as_metadata(read_folder(folder, dataset.columns), dataset)["dx"]
    counts = {code: int((labels == code).sum()) for code in dataset.classes}
    return counts, f"{len(labels):,} photos, copied from {folder}"


def find_folder(source: str) -> Path:
    """Find the folder that a source names.

    Raises:
        LesionsError: it is not a folder.
    """
    folder = Path(os.path.expanduser(source))  # noqa: PTH111 (keeps an unknown ~user)
    if not folder.is_dir():
        raise LesionsError(
            f"source: {source!r} is not a folder (looked for in {Path.cwd()}; experiments with "
            "--temp or --queue run in a copy of the project, so give a path from / on). Allowed "
            f"are sample, teaching, dataverse, kaggle, or the path of a folder. {LAYOUTS}"
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


def _copy(
    content: Content, dataset: Description, images: Path, archive: Archive | None = None
) -> pd.DataFrame:
    """Write the photos that have a class, and return their metadata; say what was assumed."""
    for note in content.notes:
        print(safe_text(note))
    metadata = as_metadata(content, dataset)
    if archive is not None:
        _check_counts(metadata, archive)
    with progress(len(metadata), "photos", "copy to data/raw") as bar:
        for image_id in metadata["image_id"]:
            photo = content.files[image_id]
            data = photo.read()
            if not data:
                raise LesionsError(f"{photo.place}: is empty. Download it again.")
            (images / file_name(image_id, photo.ending)).write_bytes(data)
            bar.update()
    return metadata


def _check_counts(metadata: pd.DataFrame, archive: Archive) -> None:
    """Compare the numbers of photos and lesions with the published ones."""
    counts = metadata["dx"].value_counts()
    found = {"photos": len(metadata), "lesions": metadata["lesion_id"].nunique()}
    found |= {code: int(counts.get(code, 0)) for code in archive.counts or {}}
    expected = {"photos": archive.photos, "lesions": archive.lesions, **(archive.counts or {})}
    wrong = [
        f"{found[name]} {name} instead of {count}"
        for name, count in expected.items()
        if count is not None and found[name] != count
    ]
    if wrong:
        raise LesionsError(f"{archive.title}: {'; '.join(wrong)}. Nothing was kept.")
