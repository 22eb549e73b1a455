"""Photo files: found in a folder and in zip files, read only when they are needed."""

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lesions.common.errors import LesionsError
from lesions.dataset.photos import Photo

MAX_BYTES = 64_000_000  # of one photo; HAM10000's largest has 0.5 MB
ENDINGS = (".jpg", ".jpeg")


def photos_in_folder(folder: Path) -> Iterator[Photo]:
    """Yield every photo in the zip files of a folder, and in the folder and those below it.

    Of two photos with the same name the last one is used.
    """
    yield from photos_in_zips(path for path in sorted(folder.glob("*.zip")) if path.is_file())
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            yield path.stem, path.read_bytes


def photos_in_zips(paths: Iterable[Path]) -> Iterator[Photo]:
    """Yield every photo in some zip files.

    Raises:
        LesionsError: a file is not a whole zip file.
    """
    for path in paths:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise LesionsError(f"{path}: not a whole zip ({error}). Download it again.") from None
        for member in archive.infolist():
            name = Path(member.filename)
            if name.suffix.lower() in ENDINGS and not member.is_dir():
                yield name.stem, _Member(path, archive, member).read


class _Member:
    """One photo in a zip file; refused if it is damaged or too large."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self._path, self._archive, self._member = path, archive, member

    def read(self) -> bytes:
        name = self._member.filename
        try:
            with self._archive.open(self._member) as file:
                data = file.read(MAX_BYTES + 1)
        except (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            OSError,
            EOFError,
        ) as error:
            raise LesionsError(
                f"{self._path}: {name} cannot be unpacked ({error}). Download the zip again."
            ) from None
        if max(len(data), self._member.file_size) > MAX_BYTES:
            raise LesionsError(
                f"{self._path}: {name} unpacks to more than {MAX_BYTES:,} bytes; no photo of "
                "HAM10000 does."
            )
        return data
