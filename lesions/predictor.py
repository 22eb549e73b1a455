"""Predictor: a model file in use, from the bytes of a photo to calibrated probabilities."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from glob import glob
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lesions import hardware, networks
from lesions.augmentation import to_unit
from lesions.diagnoses import CODES, MALIGNANT
from lesions.errors import LesionsError
from lesions.inference import BATCH
from lesions.photos import Pixels, decode
from lesions.threads import threads

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


def find_photos(places: Sequence[str]) -> list[Path]:
    """List the photos that files, folders and patterns name, in order, each once.

    Raises:
        LesionsError: a place names none.
    """
    found: dict[Path, None] = {}
    for place in places:
        path = Path(place)
        if path.is_dir():
            here = sorted(one for one in path.rglob("*") if one.suffix.lower() in ENDINGS)
        elif path.exists():
            here = [path]
        else:
            matches = sorted(glob(place))  # noqa: PTH207 - of any place, absolute or not
            here = [one for one in map(Path, matches) if one.is_file()]
        if not here:
            raise LesionsError(f"{place}: no photo. Name files, folders or patterns.")
        found |= dict.fromkeys(here)
    return list(found)


def find_model(name: str) -> Path:
    """Find a model file: by the name of its network in models/, or by its path.

    Raises:
        LesionsError: neither.
    """
    if name in networks.ARCHITECTURES:
        return Path(f"models/{name}.safetensors")
    if not Path(name).is_file():
        known = ", ".join(networks.ARCHITECTURES)
        raise LesionsError(f"model {name!r}: no such file. Name a model file, or one of {known}.")
    return Path(name)


class Answer(NamedTuple):
    """What a model says of one photo."""

    probabilities: npt.NDArray[np.float64]  # (7,), calibrated
    doubtful: bool  # less sure than of 95 % of its validation photos
    strange: bool  # farther from its training photos than 95 % of its validation photos

    @property
    def said(self) -> int:
        """The most probable diagnosis, an index."""
        return int(self.probabilities.argmax())

    @property
    def malignant(self) -> float:
        """The probability of all malignant diagnoses together."""
        return float(sum(self.probabilities[CODES.index(code)] for code in MALIGNANT))


class Photo(NamedTuple):
    """What came of one file: pixels and an answer, or an error."""

    path: Path
    pixels: Pixels | None  # (s, s, 3)
    answer: Answer | None
    error: str


class Predictor:
    """A model, asked about photos with the same pixels as those it was trained on."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load a model file onto a device (`auto`, `cpu`, `cuda`, `mps`)."""
        place = hardware.pick_device(device)
        bf16 = networks.read_card(path).precision == "bf16" and hardware.use_bf16("auto", place)
        self.classifier = networks.load(path, place, bf16)

    def pixels(self, data: bytes, name: str) -> Pixels:
        """Decode a photo as training did: (s, s, 3) uint8.

        Raises:
            LesionsError: no photo, or too large.
        """
        return decode(data, self.classifier.card.image_size, name)

    def answers(self, photos: Pixels) -> list[Answer]:
        """Answer (b, s, s, 3) uint8."""
        import torch

        with torch.inference_mode():
            on_device = torch.from_numpy(photos).to(self.classifier.place)
            logits, features = self.classifier.look(to_unit(on_device))
        probabilities = self.classifier.probabilities(logits.cpu().numpy())
        distances = self.classifier.distances(features.cpu().numpy())
        card = self.classifier.card
        return [
            Answer(chances, bool(chances.max() < card.doubt), bool(distance > card.strange))
            for chances, distance in zip(probabilities, distances, strict=True)
        ]

    def of_files(self, paths: Sequence[Path]) -> Iterator[Photo]:
        """Answer photos in order; a bad one comes with its error, and the rest go on.

        Threads decode the next batch while the network works on this one.
        """

        def read(path: Path) -> Pixels | LesionsError:
            try:
                return self.pixels(path.read_bytes(), str(path))
            except LesionsError as error:
                return error
            except OSError as error:
                return LesionsError(f"{path}: {error.strerror}.")

        def decoded(start: int) -> list[Future[Pixels | LesionsError]]:
            return [pool.submit(read, path) for path in paths[start : start + BATCH]]

        with threads() as pool:
            coming = decoded(0)
            for start in range(0, len(paths), BATCH):
                ready, coming = coming, decoded(start + BATCH)
                found = [future.result() for future in ready]
                whole = [pixels for pixels in found if isinstance(pixels, np.ndarray)]
                answers = self.answers(np.stack(whole)) if whole else []
                for path, pixels in zip(paths[start:], found, strict=False):
                    if isinstance(pixels, LesionsError):
                        yield Photo(path, None, None, str(pixels))
                    else:
                        yield Photo(path, pixels, answers.pop(0), "")
