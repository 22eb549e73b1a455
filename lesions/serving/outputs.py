"""Outputs of the commands: files that never replace what this project has not written."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lesions.common.artifacts import atomic_write, check_file, note_file
from lesions.common.errors import LesionsError
from lesions.dataset.photos import ENDINGS
from lesions.sources.files import HEATMAP_SOFTWARE

if TYPE_CHECKING:
    from lesions.serving.predictor import PhotoResult, Predictor


def check_output(path: Path, photos: Sequence[Path]) -> None:
    """Refuse to write to a photo, of those given or any file that ends like one, or to other files.

    Args:
        path: the file to write.
        photos: that are read.

    Raises:
        LesionsError: names the file.
    """
    if path.suffix.lower() in ENDINGS:
        raise LesionsError(
            f"{path}: ends like a photo and would be overwritten. Did the shell expand a pattern? "
            "Name another file to write."
        )
    check_file(path, photos)


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
        check_file(target)
        targets.add(target)
        chosen[photo] = target
    return chosen


def _shortened(part: str) -> str:
    data = os.fsencode(part)
    if len(data) <= 200:
        return part
    return f"{os.fsdecode(data[:150])}-{hashlib.sha256(data).hexdigest()[:16]}"


def check_heatmaps(predictor: "Predictor") -> None:
    """Refuse a model of photos that are too small for heat maps.

    Raises:
        LesionsError: says so.
    """
    from lesions.reporting.heatmaps import NONE, grad_cam

    size = predictor.classifier.card.image_size
    if grad_cam(predictor.classifier, np.zeros((1, size, size, 3), np.uint8), [0]) is None:
        raise LesionsError(f"--heatmap: {NONE} for photos of {size} px. Leave --heatmap out.")


def _software() -> PngInfo:
    info = PngInfo()
    info.add_text("Software", HEATMAP_SOFTWARE)
    return info


def write_heatmap(file: Path, predictor: "Predictor", result: "PhotoResult") -> None:
    """Write the heat map of a prediction."""
    assert result.pixels is not None
    assert result.prediction is not None
    from lesions.reporting.heatmaps import grad_cam, overlay

    labels = [result.prediction.predicted]
    found = grad_cam(predictor.classifier, result.pixels[None], labels)
    assert found is not None  # see check_heatmaps
    with atomic_write(file) as partial:
        Image.fromarray(overlay(result.pixels, found[0])).save(partial, "PNG", pnginfo=_software())
    note_file(file)
