"""Output files and folders: what may be written where, and that nothing is left half-written.

The rules, for every output of this project:

- A file or folder is written under another name, flushed to disk, and moved into place.
- A folder is replaced only if this project has written all that is in it: `files.txt` in the
  folder lists that. A user's own files are never deleted.
- A file never replaces a folder, and is never written through a symbolic link to another place.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.common.errors import LesionsError

LIST = "files.txt"  # of a folder's own files, itself excepted


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files_in(folder: Path) -> list[str]:
    """List the files below a folder, sorted, without its list of files."""
    files = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    return [name for name in names if name != LIST]


def check_folder(folder: Path) -> None:
    """Refuse to replace a folder that has files which this project has not written.

    Raises:
        LesionsError: names one of them.
    """
    listed = folder / LIST
    ours = set(listed.read_text(encoding="utf-8").splitlines()) if listed.is_file() else set()
    if others := [name for name in _files_in(folder) if name not in ours]:
        raise LesionsError(
            f"{folder}: has {len(others)} files that this pipeline has not written, "
            f"{folder / others[0]} for one. They would be lost: move them to another folder "
            "outside data/. (Were they written by an older version? Then delete the folder.)"
        )


def _flush(path: Path) -> None:
    """Make sure that a file or folder survives a power cut."""
    if path.is_dir():
        os.sync()  # one call for all its files
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def atomic_write(path: Path, folder: bool = False) -> Iterator[Path]:
    """Give a temporary name to write to; it becomes `path` when the block ends without error.

    Args:
        path: the file or folder to make. The old one stays until the new one is whole.
        folder: make the temporary name an empty folder.

    Raises:
        LesionsError: the disk is full, `path` cannot be written, is a folder where a file is to be
            written, or is a folder with files of the user.
    """
    if path.is_dir() and not folder:
        raise LesionsError(f"{path}: is a folder. Give the name of a file.")
    if folder and path.is_dir():
        check_folder(path)
    partial = path.with_name(path.name + ".partial")
    try:
        _remove(partial)
        (partial if folder else path.parent).mkdir(parents=True, exist_ok=True)
        yield partial
        if folder:
            (partial / LIST).write_text("".join(f"{name}\n" for name in _files_in(partial)))
        _flush(partial)
        if folder and path.is_dir():
            _remove(path)  # a folder cannot replace one that holds files
        partial.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            files = [partial, *partial.rglob("*")]
            written = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
            _remove(partial)
            free = shutil.disk_usage(path.parent).free / 1e6
            raise LesionsError(
                f"{path}: the disk is full after {written:.0f} MB of it; now {free:.0f} MB are "
                "free. Make room and run again."
            ) from error
        _remove(partial)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG):
            raise LesionsError(
                f"{path}: cannot be written ({error.strerror}). Choose another place, or make "
                f"{path.parent} writable."
            ) from error
        raise
    except BaseException:
        _remove(partial)
        raise


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index."""
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON, keys in the order given; NaN is refused, because JSON has none."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
