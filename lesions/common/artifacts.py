"""Output files and folders: what may be written where, and that nothing is left half-written.

The rules, for every output of this project:

- A file or folder is written under another name, flushed to disk, and moved into place.
- A folder is replaced only if this project has written all that is in it: `files.txt` in the
  folder lists its files and their hashes. A user's own files are never deleted.
- A file never replaces a folder, and is never written through a symbolic link to another place.
- A file whose place the user chose is replaced only if its content is what this project has written
  there or elsewhere: `check_file` looks its hash up in the user's cache.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.common.errors import LesionsError
from lesions.common.user_cache import user_cache

FILES_LIST = "files.txt"  # of a folder's own files, itself excepted: hash and name
SIGNATURE = "# Written by lesions, which replaces this folder only if these are its files.\n"
WRITTEN_LIST = (
    "written.txt"  # in the user's cache: the hash of each file that `note_file` was given
)
# What file managers put into every folder; `._NAME` is macOS's, on disks of other systems.
CLUTTER = (".ds_store", "thumbs.db", "desktop.ini")
# What a disk says that has no room, or allows no larger file.
FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def is_clutter(name: str) -> bool:
    """Say whether a file manager has made a file of this name.

    >>> is_clutter(".DS_Store"), is_clutter("._nv_1.jpg"), is_clutter("nv_1.jpg")
    (True, True, False)
    """
    return name.casefold() in CLUTTER or name.startswith("._")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """Hash the content of a file: 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _list_files(folder: Path) -> dict[str, str]:
    """Hash the files below a folder, without its list of files: a dict from name to hash."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            found[name] = "-"
        elif path.is_file() and name != FILES_LIST and not is_clutter(path.name):
            found[name] = digest_of(path)
    return found


def _read_list(folder: Path) -> dict[str, str]:
    """Read what `atomic_write` has noted; empty if the list is missing or somebody else's."""
    path = folder / FILES_LIST
    if not path.is_file() or path.is_symlink():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.startswith(SIGNATURE):
        return {}
    lines = text.removeprefix(SIGNATURE).splitlines()
    return {name: digest for digest, _, name in (line.partition(" ") for line in lines)}


def check_folder(folder: Path) -> None:
    """Refuse to replace a folder that has files which this project has not written.

    Raises:
        LesionsError: names one of them; a file that was changed since counts too.
    """
    ours, present = _read_list(folder), _list_files(folder)
    others = [name for name, digest in present.items() if ours.get(name) != digest]
    if (folder / FILES_LIST).exists() and not ours and not others:
        others = [FILES_LIST]
    if others:
        raise LesionsError(
            f"{folder}: has {len(others)} files that this pipeline has not written, or not like "
            f"this, {folder / others[0]} for one. They would be lost: move them to another folder "
            "outside data/. (Were they written by an older version? Then delete the folder.)"
        )


def check_file(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse to write to one of the inputs, or to replace a file that `note_file` does not know.

    Args:
        path: the file to write, whose place the user chose.
        inputs: files that are read.

    Raises:
        LesionsError: names the file.
    """
    if path.is_dir():
        raise LesionsError(f"{path}: is a folder. Give the name of a file.")
    if any(same_file(path, other) for other in inputs):
        raise LesionsError(f"{path}: is one of the files that are read. Name another file.")
    if not path.exists():
        return
    if not path.is_file():
        raise LesionsError(f"{path}: is a device or pipe. Name a file.")
    try:
        known = (user_cache() / WRITTEN_LIST).read_text(encoding="ascii", errors="replace")
    except OSError:  # nothing was written yet
        known = ""
    if digest_of(path) not in known.split():
        raise LesionsError(
            f"{path}: exists, and is not a file that this project has written, or was changed "
            "since. Name another file, or delete this one."
        )


def note_file(path: Path) -> None:
    """Note the hash of a file that was written, so that `check_file` lets it be replaced."""
    known = user_cache() / WRITTEN_LIST
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        with known.open("a", encoding="ascii") as file:
            file.write(f"{digest_of(path)}\n")
    except OSError as error:
        print(
            f"{known}: {error.strerror}. So {path} will not be replaced by another run.",
            file=sys.stderr,
        )


def same_file(first: Path, second: Path) -> bool:
    """Say whether two paths name one file, which need not exist yet."""
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    return first.exists() and second.exists() and first.samefile(second)


def _flush(path: Path) -> None:
    """Make sure that a file or folder survives a power cut."""
    if path.is_dir() and hasattr(os, "sync"):
        os.sync()  # one call for all its files
        return
    # Windows flushes only what is open for writing.
    for file in [path] if path.is_file() else filter(Path.is_file, path.rglob("*")):
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())


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
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise LesionsError(f"{path}: is a device or pipe. Name a file.")
    partial = path.with_name(f".{path.name}.partial")
    try:
        _remove(partial)
        (partial if folder else path.parent).mkdir(parents=True, exist_ok=True)
        yield partial
        if folder:
            listed = "".join(f"{digest} {name}\n" for name, digest in _list_files(partial).items())
            text = SIGNATURE + listed
            (partial / FILES_LIST).write_text(text, encoding="utf-8", newline="\n")
        _flush(partial)
        if folder and path.is_dir():
            _remove(path)  # a folder cannot replace one that holds files
        partial.replace(path)
    except OSError as error:
        if error.errno in FULL:
            files = [partial, *partial.rglob("*")]
            written = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
            _remove(partial)
            free = shutil.disk_usage(path.parent).free / 1e6
            full = error.errno == errno.ENOSPC
            raise LesionsError(
                f"{path}: {'the disk is full' if full else 'a limit was reached'} after "
                f"{written:.0f} MB of it; now {free:.0f} MB are free. Make room"
                f"{'' if full else ', or raise the limit (ulimit -f, quota),'} and run again."
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
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON, keys in the order given; NaN is refused, because JSON has none."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
