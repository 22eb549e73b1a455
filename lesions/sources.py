"""Sources: where photos and metadata come from, and how they reach the data folder."""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from lesions import sample, transfers
from lesions.artifacts import write_csv
from lesions.catalogue import HAM10000, ISIC2018, ISIC2018_WITHOUT_PHOTO, KAGGLE_HANDLE, Archive
from lesions.diagnoses import CODES, ISIC_COLUMNS
from lesions.errors import LesionsError
from lesions.metadata import read_metadata, read_table
from lesions.photos import Photo
from lesions.progress import progress

METADATA_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
MAX_PHOTO_BYTES = 64_000_000  # HAM10000's largest is 0.5 MB
LAYOUTS = (
    "A folder is expected with HAM10000_metadata.csv and the photos as Kaggle gives them "
    "(HAM10000_images_part_1 and _2, full of .jpg files) or as Dataverse does "
    "(HAM10000_images_part_1.zip and _2.zip)."
)


def fetch(source: str, sample_seed: int, raw: Path, archive: Archive = HAM10000) -> None:
    """Fill a folder with `metadata.csv` and `images/<image_id>.jpg`.

    Args:
        source: as the parameter `source` says.
        sample_seed: which sample is drawn.
        raw: an empty folder.
        archive: what `dataverse` fetches; the catalogue's entry, or the caller's own table.

    Raises:
        LesionsError: the source is not there or something in it is missing or wrong.
    """
    if source == "sample":
        sample.draw(sample_seed, raw)
    elif source == "dataverse":
        files = transfers.fetch(archive)
        zips = [path for name, path in files.items() if name.endswith(".zip")]
        metadata = read_metadata(files[METADATA_NAMES[0]])
        _copy(metadata, "dataverse", _in_zips(zips), raw)
        _check_counts(metadata, archive)
    elif source == "kaggle":
        print(f"HAM10000, Kaggle\n  licence: {HAM10000.licence}\n  cite: {HAM10000.citation}")
        _check_counts(_copy_folder(_from_kaggle(), raw), HAM10000)
    else:
        metadata = _copy_folder(_folder(source), raw)
        print(f"{source}: {len(metadata)} photos of {metadata['lesion_id'].nunique()} lesions")


def _folder(source: str) -> Path:
    folder = Path(os.path.expanduser(source))  # noqa: PTH111 (keeps an unknown ~user)
    if not folder.is_dir():
        raise LesionsError(
            f"source: {source!r} is no folder. Allowed are sample, dataverse, kaggle, or a "
            f"folder's path. {LAYOUTS}"
        )
    return folder


def _from_kaggle() -> Path:
    """Download with kagglehub, as nobody: no credentials of the user are read."""
    import kagglehub

    secrets = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")
    with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ):
        for name in secrets:
            os.environ.pop(name, None)
        os.environ["KAGGLE_CONFIG_DIR"] = empty
        try:
            return Path(kagglehub.dataset_download(KAGGLE_HANDLE))
        except Exception as error:  # kagglehub has no common base for its errors
            raise LesionsError(
                f"source: kaggle: {KAGGLE_HANDLE} cannot be fetched ({error}). By hand: download "
                f"it from https://www.kaggle.com/datasets/{KAGGLE_HANDLE}, unpack it and set "
                "source to its folder."
            ) from error


def _copy_folder(folder: Path, raw: Path) -> pd.DataFrame:
    """Copy the photos that a folder's metadata names; zips are read where they lie."""
    found = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if not found:
        raise LesionsError(f"{folder}: no {METADATA_NAMES[0]}. {LAYOUTS}")
    metadata = read_metadata(found[0])
    _copy(metadata, str(folder), _in_folder(folder), raw)
    return metadata


def _copy(metadata: pd.DataFrame, origin: str, photos: Iterable[Photo], raw: Path) -> None:
    """Write the photos that the metadata names, each once; names of files come from there alone."""
    readers = dict(photos)
    absent = [image_id for image_id in metadata["image_id"] if image_id not in readers]
    if absent:
        raise LesionsError(
            f"{origin}: {len(absent)} of the {len(metadata)} photos that the metadata names are "
            f"missing, {absent[0]}.jpg the first. {LAYOUTS}"
        )
    (raw / "images").mkdir()
    with progress(len(metadata), "photos", "copy to data/raw") as bar:
        for image_id in metadata["image_id"]:
            data = readers[image_id]()
            if not data:
                raise LesionsError(f"{origin}: {image_id}.jpg is empty. Fetch the photo again.")
            (raw / "images" / f"{image_id}.jpg").write_bytes(data)
            bar.update()
    write_csv(raw / "metadata.csv", metadata)
    if unnamed := len(readers) - len(metadata):
        print(f"{origin}: {unnamed} photos that the metadata does not name are left out")


def _check_counts(metadata: pd.DataFrame, archive: Archive) -> None:
    """Compare what came with what is published."""
    counts = metadata["dx"].value_counts()
    found = {"photos": len(metadata), "lesions": metadata["lesion_id"].nunique()}
    found |= {code: int(counts.get(code, 0)) for code in CODES}
    expected = {"photos": archive.photos, "lesions": archive.lesions, **(archive.counts or {})}
    wrong = [
        f"{found[name]} {name} where {count} are published"
        for name, count in expected.items()
        if count is not None and found[name] != count
    ]
    if wrong:
        raise LesionsError(f"{archive.title}: {'; '.join(wrong)}. Nothing was kept.")


def _in_folder(folder: Path) -> Iterator[Photo]:
    """Yield every photo below a folder and in its zips; of two of a name, the last one counts."""
    yield from _in_zips(path for path in sorted(folder.glob("*.zip")) if path.is_file())
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg") and path.is_file():
            yield path.stem, path.read_bytes


def _in_zips(paths: Iterable[Path]) -> Iterator[Photo]:
    """Yield every photo in some zips."""
    for path in paths:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise LesionsError(f"{path}: not a whole zip ({error}). Fetch it again.") from None
        for member in archive.infolist():
            name = Path(member.filename)
            if name.suffix.lower() in (".jpg", ".jpeg") and not member.is_dir():
                yield name.stem, _Member(path, archive, member).read


class _Member:
    """One photo in a zip: refused where it is damaged or unpacks to too much."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self._path, self._archive, self._member = path, archive, member

    def read(self) -> bytes:
        name = self._member.filename
        try:
            with self._archive.open(self._member) as file:
                data = file.read(MAX_PHOTO_BYTES + 1)
        except (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            OSError,
            EOFError,
        ) as error:
            raise LesionsError(
                f"{self._path}: {name} cannot be unpacked ({error}). Fetch the zip again."
            ) from None
        if max(len(data), self._member.file_size) > MAX_PHOTO_BYTES:
            raise LesionsError(
                f"{self._path}: {name} unpacks to more than {MAX_PHOTO_BYTES:,} bytes; no photo "
                "of HAM10000 does."
            )
        return data


def external(chosen: str, archive: Archive = ISIC2018) -> tuple[pd.DataFrame, list[Photo]]:
    """Find an external test set: photos of other people than those of HAM10000.

    Args:
        chosen: the parameter `external_test`, not `none`: `isic2018`, or a folder with photos (or
            zips of them) and one CSV in ISIC's one-hot form.
        archive: what `isic2018` fetches.

    Returns:
        Columns image_id, lesion_id (the same: ISIC names no lesions) and dx, sorted by image_id;
        and name and reader of each photo, in that order.

    Raises:
        LesionsError: it cannot be had, or photos and ground truth do not fit.
    """
    if chosen == "isic2018":
        files = transfers.fetch(archive)
        truth = next(path for name, path in files.items() if name.endswith(".csv"))
        readers = dict(_in_zips(path for name, path in files.items() if name.endswith(".zip")))
    else:
        folder = Path(os.path.expanduser(chosen))  # noqa: PTH111
        tables = sorted(folder.glob("*.csv"))
        if len(tables) != 1:
            raise LesionsError(
                f"external_test: {chosen!r}: {len(tables)} CSV files. Allowed are none, isic2018, "
                "or a folder with photos and one CSV of columns image," + ",".join(ISIC_COLUMNS)
            )
        truth, readers = tables[0], dict(_in_folder(folder))
    table = read_truth(truth)
    if chosen == "isic2018" and ISIC2018_WITHOUT_PHOTO in set(table["image_id"]) - set(readers):
        print(f"{ISIC2018_WITHOUT_PHOTO} is listed without a photo and left out")
        table = table[table["image_id"] != ISIC2018_WITHOUT_PHOTO]
    absent = [image_id for image_id in table["image_id"] if image_id not in readers]
    if absent:
        raise LesionsError(
            f"{truth}: {len(absent)} of {len(table)} photos are missing, {absent[0]}.jpg the first."
        )
    if chosen == "isic2018" and len(table) != archive.photos:
        raise LesionsError(
            f"{archive.title}: {len(table)} photos where {archive.photos} are published."
        )
    return table, [(image_id, readers[image_id]) for image_id in table["image_id"]]


def read_truth(path: Path) -> pd.DataFrame:
    """Read a ground truth in ISIC's one-hot form as image_id, lesion_id, dx."""
    table = read_table(path)
    if list(table.columns) != ["image", *ISIC_COLUMNS]:
        raise LesionsError(
            f"{path}: columns {','.join(table.columns)}; expected image,{','.join(ISIC_COLUMNS)}."
        )
    if table["image"].duplicated().any() or table.empty:
        raise LesionsError(f"{path}: no rows, or an image in two rows. Keep one row a photo.")
    values = table[list(ISIC_COLUMNS)].apply(pd.to_numeric, errors="coerce").to_numpy()
    wrong = ~((values == 1).sum(axis=1) == 1) | ~np.isin(values, (0, 1)).all(axis=1)
    if wrong.any():
        raise LesionsError(
            f"{path}: row of {table['image'][int(wrong.argmax())]}: one 1 and six 0 are expected."
        )
    dx = [ISIC_COLUMNS[index].lower() for index in values.argmax(axis=1)]
    ids = table["image"]
    found = pd.DataFrame({"image_id": ids, "lesion_id": ids, "dx": dx})
    return found.sort_values("image_id", ignore_index=True)
