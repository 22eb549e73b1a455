"""The user's cache: files that outlive a working copy, outside the repository."""

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "LESIONS_CACHE"


def user_cache() -> Path:
    """Find the folder: $LESIONS_CACHE, or the system's usual place (~/.cache/lesions on Linux)."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("lesions")
