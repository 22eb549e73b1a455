"""Arguments: the photos and the model that a command line names, found without torch."""

from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

from lesions.common import layout
from lesions.common.errors import LesionsError
from lesions.dataset.photos import ENDINGS
from lesions.sources.files import looks_like_photo, walk


class Found(NamedTuple):
    """What command-line arguments name."""

    photos: list[Path]
    left_out: list[Path]  # the other files of the folders, and heat maps
    unreadable: list[str]  # folders, each with the reason


def find_photos(arguments: Sequence[str]) -> Found:
    """List the photos that files, folders and patterns name, in order, each once.

    In a folder, a file is a photo by its ending, or by its first bytes if it has no ending. Links
    to folders are followed.

    Raises:
        LesionsError: an argument names no photo.
    """
    found: dict[Path, None] = {}
    left_out: dict[Path, None] = {}
    unreadable: list[str] = []

    def note(error: OSError) -> None:
        unreadable.append(f"{error.filename}: {error.strerror}")

    for argument in arguments:
        if not argument.strip():
            raise LesionsError("PHOTOS: an empty name. Name files, folders or patterns.")
        path = Path(argument)
        if path.is_dir():
            files = list(walk(path, note))
            photos = [file for file in files if looks_like_photo(file)]
            chosen = set(photos)
            left_out |= dict.fromkeys(file for file in files if file not in chosen)
        elif path.exists() or path.is_symlink():
            photos = [path]
        else:
            matches = sorted(glob(argument))  # noqa: PTH207 - absolute patterns too
            photos = [file for file in map(Path, matches) if file.is_file()]
        if not photos and not unreadable:
            others = f" ({len(left_out)} other files)" if left_out else ""
            raise LesionsError(
                f"{argument}: no photo found{others}. Name files, folders or patterns. Photos end "
                f"in {', '.join(ENDINGS)}."
            )
        found |= dict.fromkeys(photos)
    return Found(list(found), list(left_out), unreadable)


def find_model(name: str) -> Path:
    """Find a model file: by its network's name, in models/, or by its path.

    Raises:
        LesionsError: there is no such file.
    """
    trained = layout.model_file(name)
    for path in (trained, Path(name)):
        if path.is_file():
            return path
    here = ", ".join(sorted(path.stem for path in layout.MODELS.glob("*.safetensors")))
    raise LesionsError(
        f"model {name!r}: neither {trained} nor a file of that name was found. Trained here are: "
        f"{here or 'none; `dvc repro` trains them'}."
    )
