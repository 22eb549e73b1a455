"""The page of mistakes: every wrong test photo, why it may be wrong, and what it looks like."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from lesions.common.progress import progress
from lesions.common.types import Features, Pixels
from lesions.dataset.description import Description
from lesions.dataset.metadata import groups_of
from lesions.dataset.photos import PhotoArray
from lesions.evaluation.subgroups import traits_of
from lesions.networks.batches import PhotoLoader
from lesions.networks.inference import run_inference
from lesions.networks.model_file import TrainedModel
from lesions.reporting.heatmaps import grad_cam, overlay
from lesions.reporting.render import environment, image_uri

NEIGHBOURS = 3
SIDE = 160  # px of the photos on the page, at most


def build_mistakes(
    models: Mapping[str, TrainedModel],
    dataset: Description,
    photos: PhotoArray,
    train: pd.DataFrame,
    test: pd.DataFrame,
    predictions: Mapping[str, pd.DataFrame],
) -> str:
    """Fill templates/mistakes.html: the wrong photos of all models, the most confident first.

    Args:
        models: by name.
        dataset: its description.
        photos: all photos.
        train, test: the tables of the split.
        predictions: predictions.csv of each model.
    """
    cases = [
        case
        for name, model in models.items()
        for case in find_mistakes(model, photos, train, test, predictions[name])
    ]
    cards = [model.classifier.card for model in models.values()]
    return (
        environment(autoescape=True)
        .get_template("mistakes.html")
        .render(
            cases=sorted(cases, key=lambda case: -case["confidence"]),
            titles=[card.network.title for card in cards],
            synthetic=any(card.recipe.synthetic for card in cards),
            test_photos=len(test),
            dataset=dataset,
            groups=sorted({group for case in cases for group in case["groups"]}),
        )
    )


def find_mistakes(
    model: TrainedModel,
    photos: PhotoArray,
    train: pd.DataFrame,
    test: pd.DataFrame,
    predictions: pd.DataFrame,
) -> Iterator[dict[str, Any]]:
    """Describe each wrong photo of a model, with its heat map and the nearest training photos.

    Yields:
        image_id, actual, predicted, confidence, share (the probability of the actual class),
        groups, photo and heat_map (data URIs), and neighbours: NEIGHBOURS training photos of
        different lesions with the most similar features (dx, similarity: cosine, photo).
    """
    classifier, classes = model.classifier, model.classifier.card.classes
    wrong = predictions[predictions["actual"] != predictions["predicted"]]
    if wrong.empty:
        return
    traits = pd.DataFrame(traits_of(test), index=test.index).set_axis(test["image_id"], axis=0)
    rows = photos.rows(wrong["image_id"])
    train_rows = photos.rows(train["image_id"])

    # The features of the training photos and of the wrong ones.
    loader = PhotoLoader(photos.images, classifier.device)
    known = run_inference(classifier, loader, train_rows).features
    features = run_inference(classifier, loader, rows).features
    nearest = nearest_lesions(features, known, groups_of(train).to_numpy(dtype=str))

    with progress(len(wrong), "photos", classifier.card.network.title) as bar:
        for case, row, (indices, similarities) in zip(
            wrong.to_dict("records"), rows, nearest, strict=True
        ):
            pixels = np.array(photos.images[row])
            heat = grad_cam(classifier, pixels[None], [classes.index(case["predicted"])])[0]
            yield {
                "model": classifier.card.network.title,
                "image_id": case["image_id"],
                "actual": case["actual"],
                "predicted": case["predicted"],
                "confidence": case[case["predicted"]],
                "share": case[case["actual"]],
                "groups": [
                    f"{trait}: {value}" for trait, value in traits.loc[case["image_id"]].items()
                ],
                "photo": as_jpeg(pixels),
                "heat_map": as_jpeg(overlay(pixels, heat)),
                "neighbours": [
                    {
                        "dx": train["dx"].iloc[index],
                        "similarity": float(similarity),
                        "photo": as_jpeg(photos.images[train_rows[index]]),
                    }
                    for index, similarity in zip(indices, similarities, strict=True)
                ],
            }
            bar.update()


def nearest_lesions(
    features: Features, known: Features, lesions: npt.NDArray[np.str_]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Find the most similar training photos of NEIGHBOURS different lesions.

    Args:
        features: (n, f) rows of length 1, of the photos in question.
        known: (m, f) rows of length 1, of the training photos.
        lesions: (m,) lesion_id of each training photo.

    Yields:
        For each of the n: (NEIGHBOURS,) indices into `known`, and their cosines.

    >>> found = nearest_lesions(np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32),
    ...                         np.array(["a", "b"]))
    >>> next(found)[0].tolist()
    [0, 1]
    """
    for row in features:
        similarities = known @ row
        order = np.argsort(-similarities, kind="stable")
        _, first = np.unique(lesions[order], return_index=True)
        chosen = order[np.sort(first)[:NEIGHBOURS]]
        yield chosen, similarities[chosen]


def as_jpeg(pixels: Pixels) -> str:
    """Encode (s, s, 3) uint8 as a data URI, at most SIDE pixels wide."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    return image_uri(image, "JPEG", quality=85)
