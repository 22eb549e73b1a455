"""Checkpoints: what an interrupted training resumes from.

They are in the user's cache, because DVC deletes the workspace of `dvc exp run --temp` when it is
interrupted. Each is named by a fingerprint of all that the result depends on but the hardware, so
experiments do not overwrite each other's.
"""

import hashlib
import io
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lesions.common.artifacts import atomic_write
from lesions.common.user_cache import user_cache
from lesions.dataset.photos import PhotoArray

KEPT_FILES = 8  # files in the cache, the newest; one of ResNet50 has 380 MB


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
    """The file of one training run; removed when its model is written."""

    def __init__(self, model: str, fingerprint: str) -> None:
        """Name the file: by the network, and by what it is trained with."""
        self.path = user_cache() / "checkpoints" / f"{model}-{fingerprint[:16]}.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors, numbers, text, lists and dicts; the old file stays until it is written."""
        # Not straight to the file: torch reports a full disk as another error.
        content = io.BytesIO()
        torch.save(state, content)
        # Under a name of this process, because the same experiment may run twice at a time.
        own = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with atomic_write(own) as partial:
            partial.write_bytes(content.getbuffer())
        own.replace(self.path)
        self._remove_oldest()

    def load(self) -> dict[str, Any] | None:
        """Read the file if there is one and it is whole; print a notice if it is not."""
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, TypeError):
            print(f"{self.path}: damaged; training starts again")
            return None
        return state

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)

    def _remove_oldest(self) -> None:
        """Delete all files but the newest, also what killed processes have left half-written."""

        def age(file: Path) -> float:
            try:
                return -file.stat().st_mtime
            except FileNotFoundError:  # another process has just removed it
                return 0.0

        for file in sorted(self.path.parent.iterdir(), key=age)[KEPT_FILES:]:
            file.unlink(missing_ok=True)
