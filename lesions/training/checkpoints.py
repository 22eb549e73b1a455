"""Checkpoints: what an interrupted training resumes from.

They are in the user's cache, because DVC deletes the workspace of `dvc exp run --temp` when it is
interrupted. Each is named by a fingerprint of all that the result depends on but the hardware, so
experiments do not overwrite each other's. A file is the SHA-256 of its content in hex, a line end,
and the content, as `torch.save` writes it.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lesions.common.artifacts import atomic_write
from lesions.common.errors import LesionsError
from lesions.common.user_cache import CACHE_VARIABLE, user_cache
from lesions.dataset.photos import PhotoArray

KEPT_FILES = 8  # files in the cache, the newest; one of ResNet50 has 380 MB
INTERVAL = 30.0  # seconds from one checkpoint to the next: writing ResNet50's takes one or two
_DIGEST = 65  # characters: 64 of the SHA-256, and a line end
# The names of our files: whole, of another process, half-written or damaged.
_OURS = re.compile(r"\.?[a-z0-9][a-z0-9_-]*-[0-9a-f]{16}\.checkpoint(\.\d+)?(\.partial|\.damaged)?")
# What torch.load raises on other bytes than torch.save has written.
_DAMAGED = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError),
    *(ValueError, TypeError, AttributeError),
)


def fingerprint(settings: dict[str, Any], photos: PhotoArray, *tables: pd.DataFrame) -> str:
    """Compute a hash of all that training depends on.

    Args:
        settings: parameters, versions and code, as JSON can hold them.
        photos: all their pixels are read.
        tables: the training and validation rows, in their order.

    Returns:
        A SHA-256 in hex.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for table in tables:
        digest.update(table.to_csv(index=False).encode())
    for start in range(0, len(photos.images), 1024):
        digest.update(photos.images[start : start + 1024].tobytes())
    return digest.hexdigest()


def code_digest() -> str:
    """Compute a hash of the loaded modules of this package, as they are now: a SHA-256 in hex.

    Training loads only what it needs, so a change of the report does not change it.
    """
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        if name.startswith("lesions.") and module.__file__:
            digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()


class Checkpoint:
    """The file of one training run; removed when its model is written.

    A cache that cannot be written does not end the training: it goes on without checkpoints, and
    says so once.
    """

    def __init__(self, model: str, fingerprint: str) -> None:
        """Name the file: by the network, and by what it is trained with."""
        self.path = user_cache() / "checkpoints" / f"{model}-{fingerprint[:16]}.checkpoint"
        self._saved = -INTERVAL  # when, by time.monotonic
        self._usable = True

    def check(self, size: int) -> None:
        """Try to write to the cache, before the first epoch.

        Args:
            size: of a checkpoint, in bytes; the old one stays until the new one is written.
        """
        own = self._own()
        try:
            with atomic_write(own) as partial:
                partial.touch()
            own.unlink()
            if (free := shutil.disk_usage(own.parent).free) < 2 * size:
                raise LesionsError(f"{2 * size / 1e6:.0f} MB are needed, {free / 1e6:.0f} are free")
        except (LesionsError, OSError) as error:
            self._give_up(error)

    @property
    def is_due(self) -> bool:
        """Whether the last one was written INTERVAL ago or earlier."""
        return time.monotonic() - self._saved >= INTERVAL

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors, numbers, text, lists and dicts; the old file stays until it is written."""
        if not self._usable:
            return
        # Not straight to the file: torch reports a full disk as another error.
        content = io.BytesIO()
        torch.save(state, content)
        digest = hashlib.sha256(content.getbuffer()).hexdigest()
        own = self._own()
        try:
            with atomic_write(own) as partial, partial.open("wb") as file:
                file.write(f"{digest}\n".encode())
                file.write(content.getbuffer())
            own.replace(self.path)
            self._saved = time.monotonic()
            self._remove_oldest()
        except (LesionsError, OSError) as error:
            self._give_up(error)

    def load(self) -> dict[str, Any] | None:
        """Read the file, if there is one; set it aside, and say so, if it is not as written."""
        try:
            content = self.path.read_bytes()
        except OSError:  # there is none, or `check` has said what is wrong with the cache
            return None
        try:
            if hashlib.sha256(content[_DIGEST:]).hexdigest().encode() != content[: _DIGEST - 1]:
                raise ValueError("the content does not match its checksum")
            file = io.BytesIO(content[_DIGEST:])
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            weights = state.get("network", {}).values()
            if not all(tensor.isfinite().all() for tensor in weights):
                raise ValueError("weights that are not finite")
        except _DAMAGED as error:
            damaged = self.path.with_name(f"{self.path.name}.damaged")
            self.path.replace(damaged)
            print(f"{damaged}: a damaged checkpoint ({error}), not used; training starts again")
            return None
        return state

    def remove(self) -> None:
        """Delete the file, if there is one."""
        with contextlib.suppress(OSError):  # as in `load`
            self.path.unlink()

    def _own(self) -> Path:
        """Name a file of this process, because the same experiment may run twice at a time."""
        return self.path.with_name(f"{self.path.name}.{os.getpid()}")

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        text = str(error).rstrip(".")
        print(
            f"warning: training goes on without checkpoints, so it cannot resume: {text}. "
            f"{CACHE_VARIABLE} names another folder than {self.path.parent.parent}.",
            file=sys.stderr,
            flush=True,
        )

    def _remove_oldest(self) -> None:
        """Delete all of our files but the newest, also what killed processes have left."""

        def age(file: Path) -> float:
            try:
                return -file.stat().st_mtime
            except FileNotFoundError:  # another process has just removed it
                return 0.0

        found = (file for file in self.path.parent.iterdir() if _OURS.fullmatch(file.name))
        others = [file for file in found if file != self.path and file.is_file()]
        for file in sorted(others, key=age)[KEPT_FILES - 1 :]:
            file.unlink(missing_ok=True)
