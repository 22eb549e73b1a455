"""The checkpoint: what an interrupted training run resumes from, and which run may use it."""

import hashlib
import io
import json
import pickle
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lesions.common.artifacts import atomic_write
from lesions.dataset.photos import PhotoArray


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
    """A file in models/ that DVC and git ignore; removed at the end of training."""

    def __init__(self, path: Path, fingerprint: Callable[[], str]) -> None:
        """Name the file and the training run that owns it.

        The fingerprint is computed when it is first needed, because it reads all photos.
        """
        self._path = path
        self._fingerprint = cache(fingerprint)

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors, numbers, text, lists and dicts; the old file stays until it is written."""
        # Not straight to the file: torch reports a full disk as another error.
        content = io.BytesIO()
        torch.save({"owner": self._fingerprint(), **state}, content)
        with atomic_write(self._path) as partial:
            partial.write_bytes(content.getbuffer())

    def load(self) -> dict[str, Any] | None:
        """Read the file if it is whole and belongs to this training run; print why if not."""
        if not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
            owner = state["owner"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, TypeError):
            aside = self._path.with_suffix(".damaged")
            self._path.replace(aside)
            print(f"{self._path}: damaged, moved to {aside.name}; training starts again")
            return None
        if owner != self._fingerprint():
            print(f"{self._path}: belongs to other parameters, data or code; training starts again")
            return None
        return state
