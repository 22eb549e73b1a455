"""The photo browser: one card per test photo, with what each model makes of it, and why."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from lesions.common.progress import progress
from lesions.common.types import Features, Pixels
from lesions.dataset.description import Description
from lesions.dataset.metadata import groups_of
from lesions.dataset.photos import PhotoArray, decode_in_proportion, image_id_of, read_file
from lesions.evaluation.referrals import SENSITIVITY
from lesions.networks.batches import PhotoLoader
from lesions.networks.inference import BATCH_SIZE, run_inference
from lesions.networks.model_file import TrainedModel
from lesions.reporting.cases import (
    Case,
    Judged,
    can_find_suspects,
    groups_with_thresholds,
    on_page,
)
from lesions.reporting.heatmaps import contours, grad_cam
from lesions.reporting.render import environment, image_uri

NEIGHBOURS = 3
SIDE = 200  # px of the longer side of a photo on the page
SMALL_SIDE = 76  # px of a training photo


class Neighbour(NamedTuple):
    """A training photo that looks like the case to a network."""

    dx: str
    similarity: float  # cosine of the features
    photo: str  # data URI


class Card(NamedTuple):
    """A case as the page shows it."""

    case: Case
    photo: str  # data URI, in its own proportions
    width: int
    height: int
    contours: dict[str, str]  # by model: SVG path of the regions that support its prediction
    neighbours: list[Neighbour]


def build_browser(
    models: Mapping[str, TrainedModel],
    guide: str,
    dataset: Description,
    photos: PhotoArray,
    originals: Path,
    train: pd.DataFrame,
    cases: Sequence[Case],
    views: int,
    left_out: Sequence[str],
) -> str:
    """Fill templates/photos.html with the cases of `on_page`.

    Args:
        models: by name.
        guide: the model whose features find similar training photos.
        dataset: its description.
        photos: all photos, as the networks see them.
        originals: the folder of the photos as they came.
        train: the table of the training photos.
        cases: all test photos, from `list_cases`.
        views: as in params.yaml of the run.
        left_out: image_ids that the run has left out.
    """
    shown = on_page(cases)
    cards = [model.classifier.card for model in models.values()]
    titles = {name: model.classifier.card.network.title for name, model in models.items()}
    pages = environment(autoescape=True)
    pages.filters["for_filters"] = _for_filters
    return pages.get_template("photos.html").render(
        cards=make_cards(models, guide, photos, originals, train, shown),
        titles=titles,
        guide=titles[guide],
        synthetic=any(card.recipe.synthetic for card in cards),
        test_photos=len(cases),
        needed=sum(case.needs_a_look for case in cases),
        sensitivity=SENSITIVITY,
        can_find_suspects=can_find_suspects(),
        left_out=sorted(left_out),
        dataset=dataset,
        groups=groups_with_thresholds(dataset, cards, views),
        traits=sorted({f"{k}: {v}" for case in shown for k, v in case.traits.items()}),
    )


def _for_filters(judged: Mapping[str, Judged]) -> str:
    """Write as JSON what the page's filters need of each model."""
    return json.dumps(
        {
            name: {
                "predicted": one.predicted,
                "confidence": round(one.probabilities[one.predicted], 4),
                "missed": one.missed,
                "alarms": one.false_alarms,
            }
            for name, one in judged.items()
        }
    )


def make_cards(
    models: Mapping[str, TrainedModel],
    guide: str,
    photos: PhotoArray,
    originals: Path,
    train: pd.DataFrame,
    cases: Sequence[Case],
) -> list[Card]:
    """Add to each case its photo, heat contours and nearest training photos.

    Arguments as for `build_browser`.
    """
    rows = photos.rows(pd.Series([case.image_id for case in cases], dtype=str))
    train_rows = photos.rows(train["image_id"])

    # The photos as they came; those that are gone, as the networks see them.
    files = {image_id_of(path): path for path in sorted(originals.glob("*"))}
    pictures = [
        _original(files[case.image_id]) if case.image_id in files else photos.images[row]
        for case, row in zip(cases, rows, strict=True)
    ]

    # Where each model looks.
    drawn: dict[str, list[str]] = {}
    for name, model in models.items():
        classifier = model.classifier
        labels = [classifier.card.classes.index(case.judged[name].predicted) for case in cases]
        drawn[name] = []
        with progress(len(cases), "photos", f"{classifier.card.network.title}: heat") as bar:
            for start in range(0, len(cases), BATCH_SIZE):
                batch = slice(start, start + BATCH_SIZE)
                found = grad_cam(classifier, np.array(photos.images[rows[batch]]), labels[batch])
                if found is None:
                    break
                for heat, picture in zip(found, pictures[batch], strict=True):
                    height, width = picture.shape[:2]
                    drawn[name].append(contours(heat, width, height))
                bar.update(len(found))

    # The nearest training photos.
    classifier = models[guide].classifier
    loader = PhotoLoader(photos.images, classifier.device)
    known = run_inference(classifier, loader, train_rows).features
    features = run_inference(classifier, loader, rows).features
    nearest = nearest_lesions(features, known, groups_of(train).to_numpy(dtype=str))

    cards = []
    for number, (case, picture, (indices, similarities)) in enumerate(
        zip(cases, pictures, nearest, strict=True)
    ):
        neighbours = [
            Neighbour(
                train["dx"].iloc[index],
                float(similarity),
                as_webp(photos.images[train_rows[index]], SMALL_SIDE),
            )
            for index, similarity in zip(indices, similarities, strict=True)
        ]
        height, width = picture.shape[:2]
        paths = {name: all_[number] for name, all_ in drawn.items() if all_}
        cards.append(Card(case, as_webp(picture, SIDE), width, height, paths, neighbours))
    return cards


def _original(path: Path) -> Pixels:
    """Decode a photo in its own proportions."""
    return decode_in_proportion(read_file(path), SIDE, str(path))


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


def as_webp(pixels: Pixels, side: int) -> str:
    """Encode (h, w, 3) uint8 as a data URI, at most `side` pixels wide and high."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return image_uri(image, "WEBP", quality=70)
