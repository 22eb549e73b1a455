"""Predictions: the probabilities a model gives to the photos of a test set."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from lesions.common.errors import LesionsError
from lesions.common.params import Decision, Views
from lesions.common.types import Bools, Floats, Labels
from lesions.dataset.description import Description
from lesions.dataset.metadata import group_column, groups_of, read_table
from lesions.dataset.photos import PhotoArray
from lesions.networks.batches import PhotoLoader
from lesions.networks.inference import run_inference
from lesions.networks.model_file import TrainedModel
from lesions.scoring import out_of_distribution
from lesions.scoring.metrics import all_metrics


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for n photos, together with their true classes."""

    dataset: Description
    photos: pd.DataFrame  # image_id, lesion_id, dx and more; one row per photo
    labels: Labels
    probabilities: Floats  # (n, classes), calibrated, rows sum to 1
    uncalibrated: Floats
    predicted: Labels
    # (n,) from the training photos in feature space; None if they were not computed.
    distances: Floats | None = None

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

    @property
    def groups(self) -> "pd.Series[str]":
        """The lesion or patient of each photo: photos of one are not independent."""
        return groups_of(self.photos)

    def metrics(self, weights: Floats | None = None) -> dict[str, Floats]:
        """Compute every metric, for weighted samples of the photos: see `all_metrics`."""
        once = np.ones((1, len(self.labels)))
        return all_metrics(
            self.probabilities,
            self.uncalibrated,
            self.predicted,
            self.labels,
            self.dataset,
            once if weights is None else weights,
        )

    def subset(self, chosen: Bools) -> "Predictions":
        """Take the photos where `chosen`, (n,), is true."""
        return Predictions(
            self.dataset,
            self.photos[chosen],
            self.labels[chosen],
            self.probabilities[chosen],
            self.uncalibrated[chosen],
            self.predicted[chosen],
            None if self.distances is None else self.distances[chosen],
        )


def predict_test_set(
    model: TrainedModel,
    dataset: Description,
    array: Path,
    table: Path,
    decision: Decision,
    views: Views,
) -> Predictions:
    """Predict the photos of a test set.

    Args:
        model: from a model file.
        dataset: of the test set.
        array: the folder that the resize stage wrote.
        table: a CSV file with image_id, lesion_id and dx.
        decision: which class to predict, given the probabilities.
        views: how many mirrored views to average.

    Raises:
        LesionsError: the model was trained for other classes or groups, or for photos of another
            size.
    """
    classifier, card = model.classifier, model.classifier.card
    photos, rows = PhotoArray(array), read_table(table, "image_id", "lesion_id", "dx")
    for key in ("classes", "groups"):
        if (own := getattr(card.dataset, key)) != (wanted := getattr(dataset, key)):
            raise LesionsError(
                f"{card.network.title} was trained with the {key} {_listed(own)}, but the dataset "
                f"of this run has {_listed(wanted)}. Run `dvc repro`."
            )
    if card.image_size != photos.size:
        raise LesionsError(
            f"{array}: has photos of {photos.size} px, but {card.network.title} was trained with "
            f"{card.image_size} px. Run `dvc repro`."
        )
    loader = PhotoLoader(photos.images, classifier.device)
    logits, features = run_inference(classifier, loader, photos.rows(rows["image_id"]), views)
    fitted = card.use(views)
    probabilities = fitted.calibration.probabilities(logits)
    return Predictions(
        dataset,
        rows,
        dataset.labels_of(rows["dx"]),
        probabilities,
        softmax(logits.astype(np.float64), axis=1),
        fitted.decide(probabilities, decision),
        out_of_distribution.distances(features, model.subspace),
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def majority_baseline(predictions: Predictions) -> Predictions:
    """Always predict the most common class of the test set: what a model has to beat."""
    predicted = np.full_like(predictions.labels, np.bincount(predictions.labels).argmax())
    always = np.eye(len(predictions.dataset.classes))[predicted]
    dataset, photos, labels = predictions.dataset, predictions.photos, predictions.labels
    return Predictions(dataset, photos, labels, always, always, predicted)


def as_table(predictions: Predictions) -> pd.DataFrame:
    """Make the table of predictions.csv.

    Returns:
        Columns image_id, lesion_id (and patient_id, if the photos have one), actual, predicted,
        confidence (the highest probability), and one probability per class in class order.
    """
    photos, classes = predictions.photos, predictions.dataset.classes
    ids = dict.fromkeys(("image_id", "lesion_id", group_column(photos)))
    table = photos[list(ids)].reset_index(drop=True)
    table["actual"] = [classes[index] for index in predictions.labels]
    table["predicted"] = [classes[index] for index in predictions.predicted]
    rounded = predictions.probabilities.round(9)
    table["confidence"] = rounded.max(axis=1)
    return pd.concat([table, pd.DataFrame(rounded, columns=list(classes))], axis=1)


def as_isic_submission(predictions: Predictions) -> pd.DataFrame:
    """Make the ISIC challenge's table: image, and one probability per class, in capitals."""
    ids = pd.DataFrame({"image": predictions.photos["image_id"].to_numpy()})
    capitals = [code.upper() for code in predictions.dataset.classes]
    columns = pd.DataFrame(predictions.probabilities.round(9), columns=capitals)
    return pd.concat([ids, columns], axis=1)
