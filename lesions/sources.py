"""Sources: where photos and metadata come from, and how they reach data/raw."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lesions import sample
from lesions.artifacts import write_csv
from lesions.errors import LesionsError
from lesions.metadata import read_metadata
from lesions.progress import progress

METADATA_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
MAX_PHOTO_BYTES = 64_000_000  # HAM10000's largest is 0.5 MB
LAYOUTS = (
    "A folder is expected with HAM10000_metadata.csv and the photos as Kaggle gives them "
    "(HAM10000_images_part_1 and _2, full of .jpg files) or as Dataverse does "
    "(HAM10000_images_part_1.zip and _2.zip)."
)


def fetch(source: str, sample_seed: int, raw: Path) -> None:
    """Fill a folder with `metadata.csv` and `images/<image_id>.jpg`.

    Args:
        source: as the parameter `source` says.
        sample_seed: which sample is drawn.
        raw: an empty folder.

    Raises:
        LesionsError: the source is not there or something in it is missing or wrong.
    """
    if source == "sample":
        sample.draw(sample_seed, raw)
    elif source in ("dataverse", "kaggle"):
        raise LesionsError(
            f"source: {source} cannot be fetched by this version. Download HAM10000 by hand "
            "(doi:10.7910/DVN/DBW86T) and set source to the folder it lies in."
        )
    else:
        copy_folder(Path(source).expanduser(), raw)


def copy_folder(folder: Path, raw: Path) -> None:
    """Copy the photos that a folder's metadata names; zips are read where they lie.

    A photo that lies there twice, as in Kaggle's copy, is taken once.
    """
    if not folder.is_dir():
        raise LesionsError(
            f"source: {str(folder)!r} is no folder. Allowed are sample, dataverse, kaggle, or a "
            f"folder's path. {LAYOUTS}"
        )
    found = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if not found:
        raise LesionsError(f"{folder}: no {METADATA_NAMES[0]}. {LAYOUTS}")
    metadata = read_metadata(found[0])
    photos = dict(_photos(folder))
    absent = [image_id for image_id in metadata["image_id"] if image_id not in photos]
    if absent:
        raise LesionsError(
            f"{folder}: {len(absent)} of the {len(metadata)} photos that {found[0].name} names are "
            f"missing, {absent[0]}.jpg the first. {LAYOUTS}"
        )
    (raw / "images").mkdir()
    with progress(len(metadata), "photos", f"copy from {folder.name}") as bar:
        for image_id in metadata["image_id"]:
            data = photos[image_id]()
            if not data:
                raise LesionsError(f"{folder}: {image_id}.jpg is empty. Fetch the photo again.")
            (raw / "images" / f"{image_id}.jpg").write_bytes(data)
            bar.update()
    write_csv(raw / "metadata.csv", metadata)
    if unnamed := len(photos) - len(metadata):
        print(f"{folder}: {unnamed} photos that {found[0].name} does not name are left out")


def _photos(folder: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield image_id and reader of every photo below a folder and in its zips."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg") and path.is_file():
            yield path.stem, path.read_bytes
    for path in sorted(folder.glob("*.zip")):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise LesionsError(f"{path}: not a whole zip ({error}). Fetch it again.") from None
        for member in archive.infolist():
            name = Path(member.filename)
            if name.suffix.lower() in (".jpg", ".jpeg"):
                yield name.stem, _reader(path, archive, member)


def _reader(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    """Make a reader of one member, which refuses what is damaged or unpacks to too much."""

    def read() -> bytes:
        try:
            with archive.open(member) as file:
                data = file.read(MAX_PHOTO_BYTES + 1)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
            raise LesionsError(
                f"{path}: {member.filename} cannot be unpacked ({error}). Fetch the zip again."
            ) from None
        if len(data) > MAX_PHOTO_BYTES:
            raise LesionsError(
                f"{path}: {member.filename} unpacks to more than {MAX_PHOTO_BYTES:,} bytes; "
                "no photo of HAM10000 does."
            )
        return data

    return read
