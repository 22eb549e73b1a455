"""The checkpoint: what an interrupted training goes on from, and by whom it may be used."""

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

from lesions.artifacts import replacing
from lesions.photos import PhotoArray


def fingerprint(settings: dict[str, Any], photos: PhotoArray, *tables: pd.DataFrame) -> str:
    """Sum up all that a training depends on.

    Args:
        settings: parameters, versions and code, as JSON knows them.
        photos: pixels, read whole.
        tables: the manifests, in the order of their rows.

    Returns:
        A SHA-256 in hex.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for table in tables:
        digest.update(table.to_csv(index=False).encode())
    for start in range(0, len(photos.images), 1024):
        digest.update(photos.images[start : start + 1024].tobytes())
    return digest.hexdigest()


def code() -> str:
    """Sum up this package's modules that are loaded, as they are now: a SHA-256 in hex.

    A training loads what it needs and nothing else, so a change of the report leaves it alone.
    """
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        if name.startswith("lesions.") and module.__file__:
            digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()


class Checkpoint:
    """A file beside the model, unknown to DVC and git, removed once the training is done."""

    def __init__(self, path: Path, fingerprint: Callable[[], str]) -> None:
        """Bind a path to the training that owns it.

        Its fingerprint is taken when first needed: reading all photos can wait until after the
        first epoch.
        """
        self._path = path
        self._fingerprint = cache(fingerprint)

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors, numbers, text, lists and dicts; the last one stays good meanwhile."""
        import torch

        # Not straight to the file: torch hides a full disk behind an error of its own.
        content = io.BytesIO()
        torch.save({"owner": self._fingerprint(), **state}, content)
        with replacing(self._path) as partial:
            partial.write_bytes(content.getbuffer())

    def load(self) -> dict[str, Any] | None:
        """Read it if it is whole and this training's own; say so if it is not."""
        import torch

        if not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
            owner = state["owner"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, TypeError):
            aside = self._path.with_suffix(".damaged")
            self._path.replace(aside)
            print(f"{self._path}: damaged, set aside as {aside.name}; training starts afresh")
            return None
        if owner != self._fingerprint():
            print(f"{self._path}: of other parameters, data or code; training starts afresh")
            return None
        return state
