"""The predictor: a model file in use, from the bytes of a photo to calibrated probabilities."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from lesions.common.errors import LesionsError
from lesions.common.params import Decision, Views
from lesions.common.threads import thread_pool
from lesions.common.types import Pixels
from lesions.dataset.photos import decode, read_file
from lesions.networks import hardware, model_file
from lesions.networks.augmentation import to_float
from lesions.networks.inference import BATCH_SIZE, logits_and_features
from lesions.scoring import out_of_distribution
from lesions.scoring.operating_points import OperatingPoint, score

MIN_SIDE = 32  # px of a photo; smaller ones show nothing


class Prediction(NamedTuple):
    """A model's prediction for one photo."""

    probabilities: npt.NDArray[np.float64]  # (classes,), calibrated
    predicted: int  # the index of the class, by the predictor's decision
    scores: dict[str, float]  # the probability of each group: of all its classes together
    low_confidence: bool  # less confident than for 95 % of its validation photos
    out_of_distribution: bool  # farther from its training photos than 95 % of validation photos

    def reaches(self, point: OperatingPoint) -> bool:
        """Whether the photo is at or above a threshold: to be referred."""
        return self.scores[point.group] >= point.threshold


class PhotoResult(NamedTuple):
    """What became of one file: pixels and a prediction, or an error."""

    path: Path
    pixels: Pixels | None  # (s, s, 3)
    prediction: Prediction | None
    error: str


class Predictor:
    """A model that predicts photos from the same pixels as those it was trained on."""

    def __init__(
        self,
        path: Path,
        device: str = "auto",
        decision: Decision = "most-probable",
        views: Views = 1,
    ) -> None:
        """Load a model file.

        Args:
            path: the file.
            device: as the parameter: `auto`, `cpu`, `cuda`, `mps`.
            decision: which class to predict, given the probabilities.
            views: how many mirrored views to average, 1 or 4.
        """
        # In fp32, for which calibration and thresholds were fitted.
        model = model_file.load(path, hardware.set_up(device, "fp32", deterministic=True))
        self.classifier, self._subspace = model.classifier, model.subspace
        self.fitted = model.classifier.card.use(views)
        self._decision = decision

    def decode(self, data: bytes, name: str) -> Pixels:
        """Decode a photo like the training photos: (s, s, 3) uint8.

        Raises:
            LesionsError: not a photo, too large, or too small to show anything.
        """
        pixels = decode(data, self.classifier.card.image_size, name)
        with Image.open(io.BytesIO(data)) as image:
            if min(image.size) < MIN_SIDE:
                raise LesionsError(
                    f"{name}: {image.width}×{image.height} pixels; at least {MIN_SIDE} in each "
                    "direction are needed. Use the original photo."
                )
        return pixels

    def predict(self, photos: Pixels) -> list[Prediction]:
        """Predict (b, s, s, 3) uint8.

        Raises:
            LesionsError: a probability is not finite.
        """
        classifier, fitted = self.classifier, self.fitted
        card = classifier.card
        with torch.inference_mode():
            on_device = torch.from_numpy(photos).to(classifier.device)
            images = to_float(on_device)
            logits, features = logits_and_features(classifier, images, fitted.views)
        probabilities = fitted.calibration.probabilities(logits.cpu().numpy())
        if not np.isfinite(probabilities).all():
            raise LesionsError(f"{card.network.title}: a prediction is not finite: train it again.")
        predicted = fitted.decide(probabilities, self._decision)
        groups = {name: card.dataset.indices(name) for name in card.dataset.groups}
        scores = {name: score(probabilities, members) for name, members in groups.items()}
        distances = out_of_distribution.distances(features.cpu().numpy(), self._subspace)
        return [
            Prediction(
                row,
                int(predicted[number]),
                {name: float(values[number]) for name, values in scores.items()},
                bool(row.max() < fitted.confidence_threshold),
                bool(distances[number] > fitted.distance_threshold),
            )
            for number, row in enumerate(probabilities)
        ]

    def predict_files(self, paths: Sequence[Path]) -> Iterator[PhotoResult]:
        """Predict photos in order; an unreadable one gives its error, and the rest go on.

        Threads decode the next batch while the network works on the present one.
        """

        def read(path: Path) -> Pixels | LesionsError:
            try:
                return self.decode(read_file(path), str(path))
            except LesionsError as error:
                return error

        def decode_batch(start: int) -> list[Future[Pixels | LesionsError]]:
            return [pool.submit(read, path) for path in paths[start : start + BATCH_SIZE]]

        with thread_pool() as pool:
            coming = decode_batch(0)
            for start in range(0, len(paths), BATCH_SIZE):
                ready, coming = coming, decode_batch(start + BATCH_SIZE)
                decoded = [future.result() for future in ready]
                photos = [pixels for pixels in decoded if isinstance(pixels, np.ndarray)]
                predictions = iter(self.predict(np.stack(photos)) if photos else [])
                for path, pixels in zip(paths[start:], decoded, strict=False):
                    if isinstance(pixels, LesionsError):
                        yield PhotoResult(path, None, None, str(pixels))
                    else:
                        yield PhotoResult(path, pixels, next(predictions), "")
