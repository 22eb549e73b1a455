"""Output files and folders that are whole or absent: written under another name, then moved."""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.common.errors import LesionsError


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path, folder: bool = False) -> Iterator[Path]:
    """Give a temporary name to write to; it becomes `path` when the block ends without error.

    Args:
        path: the file or folder to make. The old one stays until the new one is whole.
        folder: make the temporary name an empty folder.

    Raises:
        LesionsError: the disk is full, `path` cannot be written, or is a folder where a file is
            to be written.
    """
    if path.is_dir() and not folder:
        raise LesionsError(f"{path}: is a folder; a file is to be written. Name a file.")
    partial = path.with_name(path.name + ".partial")
    try:
        _remove(partial)
        (partial if folder else path.parent).mkdir(parents=True, exist_ok=True)
        yield partial
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
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise LesionsError(
                f"{path}: cannot be written ({error.strerror}). Make {path.parent} writable."
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
