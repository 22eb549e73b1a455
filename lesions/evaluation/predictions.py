"""Predictions: the probabilities a model gives to the photos of a test set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax

from lesions.common.errors import LesionsError
from lesions.dataset.diagnoses import CODES, ISIC_COLUMNS, Labels, labels_of
from lesions.dataset.metadata import read_table
from lesions.dataset.photos import PhotoArray
from lesions.networks import out_of_distribution
from lesions.networks.batches import PhotoLoader
from lesions.networks.decision import Decision
from lesions.networks.inference import run_inference
from lesions.networks.model_file import TrainedModel

Probabilities = npt.NDArray[np.floating]  # (n, 7), rows sum to 1, columns in class order


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for n photos, together with their true diagnoses."""

    photos: pd.DataFrame  # image_id, lesion_id, dx and more; one row per photo
    labels: Labels
    probabilities: Probabilities  # calibrated
    uncalibrated: Probabilities
    predicted: Labels
    # (n,) from the training photos in feature space; None if they were not computed.
    distances: npt.NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        """Refuse an empty test set, and probabilities that are not finite."""
        if len(self.labels) == 0:
            raise LesionsError("the test set has no photos; raise test_share or add photos.")
        if not np.isfinite(self.probabilities).all():
            row = int(np.flatnonzero(~np.isfinite(self.probabilities).all(axis=1))[0])
            raise LesionsError(
                f"the probabilities of {self.photos['image_id'].iloc[row]} are "
                f"{self.probabilities[row].tolist()}: the model is broken. Train it again with a "
                "lower lr, or precision: fp32."
            )

    def subset(self, chosen: npt.NDArray[np.bool_]) -> "Predictions":
        """Take the photos where `chosen`, (n,), is true."""
        return Predictions(
            self.photos[chosen],
            self.labels[chosen],
            self.probabilities[chosen],
            self.uncalibrated[chosen],
            self.predicted[chosen],
            None if self.distances is None else self.distances[chosen],
        )


def predict_test_set(
    model: TrainedModel, array: Path, table: Path, decision: Decision, views: int
) -> Predictions:
    """Predict the photos of a test set.

    Args:
        model: from a model file.
        array: the folder that the resize stage wrote.
        table: a CSV file with image_id, lesion_id and dx.
        decision: which diagnosis to predict, given the probabilities.
        views: how many mirrored views to average.

    Raises:
        LesionsError: the photos do not have the size that the model was trained with.
    """
    classifier, card = model.classifier, model.classifier.card
    photos, rows = PhotoArray(array), read_table(table, "image_id", "lesion_id", "dx")
    if card.image_size != photos.size:
        raise LesionsError(
            f"{array}: has photos of {photos.size} px, but {card.network.title} was trained with "
            f"{card.image_size} px. Run `dvc repro`."
        )
    loader = PhotoLoader(photos.images, classifier.device)
    logits, features = run_inference(classifier, loader, photos.rows(rows["image_id"]), views)
    probabilities = classifier.probabilities(logits)
    return Predictions(
        rows,
        labels_of(rows),
        probabilities,
        softmax(logits.astype(np.float64), axis=1),
        card.decide(probabilities, decision),
        out_of_distribution.distances(features, model.subspace),
    )


def majority_baseline(predictions: Predictions) -> Predictions:
    """Always predict the most common diagnosis of the test set: what a model has to beat."""
    predicted = np.full_like(predictions.labels, np.bincount(predictions.labels).argmax())
    always = np.eye(len(CODES))[predicted]
    return Predictions(predictions.photos, predictions.labels, always, always, predicted)


def as_table(predictions: Predictions) -> pd.DataFrame:
    """Make the table of predictions.csv.

    Returns:
        Columns image_id, lesion_id, actual, predicted, and one probability per diagnosis in class
        order.
    """
    table = pd.DataFrame(
        {
            "image_id": predictions.photos["image_id"].to_numpy(),
            "lesion_id": predictions.photos["lesion_id"].to_numpy(),
            "actual": [CODES[index] for index in predictions.labels],
            "predicted": [CODES[index] for index in predictions.predicted],
        }
    )
    columns = pd.DataFrame(predictions.probabilities.round(9), columns=list(CODES))
    return pd.concat([table, columns], axis=1)


def as_isic_submission(predictions: Predictions) -> pd.DataFrame:
    """Make the ISIC challenge's table: image, and one probability per diagnosis in its order."""
    ids = pd.DataFrame({"image": predictions.photos["image_id"].to_numpy()})
    columns = pd.DataFrame(predictions.probabilities, columns=[code.upper() for code in CODES])
    return pd.concat([ids, columns[list(ISIC_COLUMNS)].round(9)], axis=1)
