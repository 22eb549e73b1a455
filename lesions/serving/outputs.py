"""Outputs of the commands: files that never replace what this project has not written."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lesions.common.artifacts import atomic_write
from lesions.common.errors import LesionsError
from lesions.dataset.photos import ENDINGS

if TYPE_CHECKING:
    from lesions.serving.predictor import PhotoResult, Predictor

SOFTWARE = "lesions predict"  # in the pictures that it writes


def check_output(path: Path, photos: Sequence[Path], start: str) -> None:
    """Refuse to write to a photo, of those given or any file that ends like one, or to other files.

    Args:
        path: the file to write.
        photos: that are read.
        start: the first characters of a file of this kind, which may be replaced.

    Raises:
        LesionsError: names the file.
    """
    if path.suffix.lower() in ENDINGS:
        raise LesionsError(
            f"{path}: ends like a photo and would be overwritten. Did the shell expand a pattern? "
            "Name another file to write."
        )
    target = os.path.realpath(path)
    for photo in photos:
        same = path.exists() and photo.exists() and path.samefile(photo)
        if os.path.realpath(photo) == target or same:
            raise LesionsError(f"{path}: is one of the photos. Name another file.")
    if path.is_dir():
        raise LesionsError(f"{path}: is a folder. Give the name of a file.")
    ours = path.is_file() and path.read_bytes().startswith(start.encode())
    if path.exists() and not ours:
        raise LesionsError(
            f"{path}: exists, and is not a file that this command has written. Name another."
        )


def heatmap_files(folder: Path, photos: Sequence[Path]) -> dict[Path, Path]:
    """Choose the file of each photo's heat map, below `folder`, by the photo's own path.

    `..` becomes `%up`; a name that would be too long is shortened and gets a hash.

    Raises:
        LesionsError: a file would be written over a photo, through a link, or twice.
    """
    chosen: dict[Path, Path] = {}
    if folder.exists() and not folder.is_dir():
        raise LesionsError(f"{folder}: is not a folder. Name another --heatmap.")
    inputs = {os.path.realpath(photo) for photo in photos}
    targets: set[Path] = set()
    for photo in photos:
        parts = [part.replace("%", "%%") for part in photo.parts if part != photo.anchor]
        parts = ["%up" if part == ".." else _shortened(part) for part in parts]
        target = folder.joinpath(*parts[:-1], f"{parts[-1]}.png")
        if os.path.realpath(target) in inputs:
            raise LesionsError(f"{target}: is a photo to predict. Name another --heatmap.")
        inside = [target, *target.parents][: len(parts)]
        if link := next((path for path in inside if path.is_symlink()), None):
            raise LesionsError(f"{link}: is a link to another place. Name another --heatmap.")
        if target in targets:
            raise LesionsError(f"{target}: two photos would have this heat map.")
        if target.exists() and not _is_heatmap(target):
            raise LesionsError(f"{target}: exists, and is not a heat map. Name another --heatmap.")
        targets.add(target)
        chosen[photo] = target
    return chosen


def _is_heatmap(file: Path) -> bool:
    """Say whether this program has written a picture."""
    try:
        with Image.open(file, formats=["PNG"]) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, ValueError):
        return False


def _shortened(part: str) -> str:
    data = os.fsencode(part)
    if len(data) <= 200:
        return part
    return f"{os.fsdecode(data[:150])}-{hashlib.sha256(data).hexdigest()[:16]}"


def _software() -> PngInfo:
    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    return info


def write_heatmap(file: Path, predictor: "Predictor", result: "PhotoResult") -> None:
    """Write the heat map of a prediction."""
    assert result.pixels is not None
    assert result.prediction is not None
    from lesions.reporting.heatmaps import grad_cam, overlay

    labels = [result.prediction.predicted]
    heat = grad_cam(predictor.classifier, result.pixels[None], labels)[0]
    with atomic_write(file) as partial:
        Image.fromarray(overlay(result.pixels, heat)).save(partial, "PNG", pnginfo=_software())
