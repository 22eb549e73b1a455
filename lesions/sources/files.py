"""Photo files: found in a folder and in zip files, read only when they are needed."""

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lesions.common.artifacts import is_clutter
from lesions.common.errors import LesionsError
from lesions.dataset.photos import ENDINGS, MAX_BYTES, read_file

JPEG_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
HEATMAP_SOFTWARE = "lesions predict"  # what heat maps name as the software that made them
ENCRYPTED = 1  # the flag of a member of a zip file
_HIDDEN = "."  # macOS puts `._name` beside files on foreign disks


class PhotoFile(NamedTuple):
    """A photo in a folder or zip file."""

    name: str  # without folder and ending: the image_id
    ending: str  # in lower case; .jpg for every kind of JPEG
    folders: tuple[str, ...]  # that it is in, from the source down
    place: str  # for messages
    size: int  # bytes
    read: Callable[[], bytes]


def walk(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield the files in a folder and those below it, sorted; links to folders are followed.

    Hidden files and those of file managers are left out. Every folder is entered once, however many
    links lead to it.

    Args:
        folder: may be nested to any depth.
        on_error: called for a folder that cannot be read; by default its error is raised.
    """
    waiting, visited = [folder], set[tuple[int, int]]()
    while waiting:
        path = waiting.pop()
        try:
            if not path.is_dir():
                yield path
                continue
            status = path.stat()
            if (status.st_dev, status.st_ino) not in visited:
                visited.add((status.st_dev, status.st_ino))
                waiting += sorted(filter(_is_shown, path.iterdir()), reverse=True)
        except OSError as error:
            if on_error is None:
                raise
            on_error(error)


def _is_shown(path: Path) -> bool:
    return not (path.name.startswith(_HIDDEN) or is_clutter(path.name))


def is_heatmap(path: Path) -> bool:
    """Say whether a file is a heat map that `lesions predict` has written, by its first bytes."""
    if path.suffix.lower() != ".png" or not path.is_file():
        return False
    with path.open("rb") as file:
        return f"Software\0{HEATMAP_SOFTWARE}".encode() in file.read(200)


def looks_like_photo(path: Path) -> bool:
    """Say whether a file is a photo, by its ending, or by its first bytes if it has none."""
    if path.suffix:
        return path.suffix.lower() in ENDINGS and not is_heatmap(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4).startswith((b"\xff\xd8", b"\x89PNG", b"II*", b"MM", b"BM", b"RIFF"))


def photos_in_folder(folder: Path) -> Iterator[PhotoFile]:
    """Yield every photo in a folder, in those below it, and in their zip files."""
    for path in walk(folder):
        if path.suffix.lower() == ".zip" and path.is_file():
            yield from photos_in_zips([path], path.relative_to(folder).parts[:-1])
        elif path.suffix.lower() in ENDINGS and path.is_file():
            size = path.stat().st_size
            folders = path.relative_to(folder).parts[:-1]
            read = partial(read_file, path)
            yield PhotoFile(path.stem, ending_of(path), folders, str(path), size, read)


def photos_in_zips(paths: Iterable[Path], folders: tuple[str, ...] = ()) -> Iterator[PhotoFile]:
    """Yield every photo in some zip files, which are in `folders` of a source.

    Raises:
        LesionsError: a file is not a whole zip file.
    """
    for path in paths:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise LesionsError(f"{path}: not a whole zip ({error}). Download it again.") from None
        for member in archive.infolist():
            if member.flag_bits & ENCRYPTED:
                raise LesionsError(
                    f"{path}: is encrypted. Unpack it with its password, and name the folder."
                )
            name = PurePosixPath(member.filename)
            if name.suffix.lower() not in ENDINGS or member.is_dir():
                continue
            if not any(part.startswith((_HIDDEN, "__MACOSX")) for part in name.parts):
                place = f"{path}: {member.filename}"
                read = _Member(path, archive, member).read
                inside = (*folders, *name.parts[:-1])
                yield PhotoFile(name.stem, ending_of(name), inside, place, member.file_size, read)


def ending_of(path: Path | PurePosixPath) -> str:
    """Return the ending in lower case; .jpg for every kind of JPEG."""
    ending = path.suffix.lower()
    return ".jpg" if ending in JPEG_ENDINGS else ending


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
            lzma.LZMAError,
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
                f"{self._path}: {name} unpacks to more than {MAX_BYTES:,} bytes, which no "
                "photo needs."
            )
        return data
