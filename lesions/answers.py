"""Answers: what a model said of a set of photos, beside what is true."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions.batches import Batches
from lesions.diagnoses import CODES, ISIC_COLUMNS, Labels, labels_of
from lesions.errors import LesionsError
from lesions.inference import predict
from lesions.metadata import read_table
from lesions.networks import Classifier
from lesions.photos import PhotoArray

Probabilities = npt.NDArray[np.floating]  # (n, 7), rows sum to 1, columns in class order


@dataclass(frozen=True)
class Answers:
    """What a model said of n photos."""

    photos: pd.DataFrame  # the manifest: image_id, lesion_id, dx and more; a row a photo
    labels: Labels
    probabilities: Probabilities  # calibrated
    uncalibrated: Probabilities
    # (n,), from the training photos in feature space; None where no network of ours was asked.
    distances: npt.NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be scored: no photos, or probabilities that are none."""
        if len(self.labels) == 0:
            raise LesionsError("the test set has no photos; raise test_share or add photos.")
        if not np.isfinite(self.probabilities).all():
            row = int(np.flatnonzero(~np.isfinite(self.probabilities).all(axis=1))[0])
            raise LesionsError(
                f"probabilities of {self.photos['image_id'].iloc[row]} are "
                f"{self.probabilities[row].tolist()}: the model is broken. Train it again with a "
                "lower lr, or precision: fp32."
            )

    @property
    def said(self) -> Labels:
        """The most probable diagnosis of each photo, (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def part(self, chosen: npt.NDArray[np.bool_]) -> "Answers":
        """Keep some photos, (n,) bool."""
        return Answers(
            self.photos[chosen],
            self.labels[chosen],
            self.probabilities[chosen],
            self.uncalibrated[chosen],
            None if self.distances is None else self.distances[chosen],
        )


def answer(classifier: Classifier, array: Path, manifest: Path) -> Answers:
    """Ask a model about the photos of a manifest.

    Args:
        classifier: the model.
        array: folder that the resize stage wrote.
        manifest: CSV with image_id, lesion_id and dx.

    Raises:
        LesionsError: the photos are not of the size that the model was trained on.
    """
    photos, table = PhotoArray(array), read_table(manifest, "image_id", "lesion_id", "dx")
    card = classifier.card
    if card.image_size != photos.size:
        raise LesionsError(
            f"{array}: photos of {photos.size} px for {card.architecture} trained on "
            f"{card.image_size} px. Run `dvc repro`."
        )
    batches = Batches(photos.images, classifier.place)
    logits, features = predict(classifier, batches, photos.rows(table["image_id"]))
    return Answers(
        table,
        labels_of(table),
        classifier.probabilities(logits),
        classifier.probabilities(logits, temperature=1),
        classifier.distances(features),
    )


def predictions(answers: Answers) -> pd.DataFrame:
    """Lay out the answers: image_id, lesion_id, actual, predicted, a probability a diagnosis."""
    table = pd.DataFrame(
        {
            "image_id": answers.photos["image_id"].to_numpy(),
            "lesion_id": answers.photos["lesion_id"].to_numpy(),
            "actual": [CODES[index] for index in answers.labels],
            "predicted": [CODES[index] for index in answers.said],
        }
    )
    columns = pd.DataFrame(answers.probabilities.round(9), columns=list(CODES))
    return pd.concat([table, columns], axis=1)


def submission(answers: Answers) -> pd.DataFrame:
    """Lay out the answers in ISIC's form: image and a probability a diagnosis, in its order."""
    ids = pd.DataFrame({"image": answers.photos["image_id"].to_numpy()})
    columns = pd.DataFrame(answers.probabilities, columns=[code.upper() for code in CODES])
    return pd.concat([ids, columns[list(ISIC_COLUMNS)].round(9)], axis=1)
