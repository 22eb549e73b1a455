"""Files and folders that are whole or absent: written under another name, then moved."""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.errors import LesionsError


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, folder: bool = False) -> Iterator[Path]:
    """Give a temporary name to write to; it becomes `path` when the block ends well.

    Args:
        path: the file or folder to make. What was there stays until the new one is whole.
        folder: make the temporary name an empty folder.

    Raises:
        LesionsError: the disk is full or the place cannot be written to.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        _remove(partial)
        (partial if folder else path.parent).mkdir(parents=True, exist_ok=True)
        yield partial
        if path.is_dir():
            _remove(path)  # a folder cannot replace one that holds files
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(path.parent).free / 1e6
            raise LesionsError(
                f"{path}: the disk is full ({free:.0f} MB free). Make room and run again."
            ) from error
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
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON in the order given; NaN is refused, as JSON has none."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
