"""Choosing: how far a test result is too good after the test set has chosen the model.

    python -m studies.choosing

Nothing of the pipeline is trained. `--models` simple models are fitted on the training photos, each
by logistic regression on the counts of other colours, chosen at random: part of the difference
between them is luck. Then 400 studies are imitated. Each divides the lesions (or patients) of the
validation and test photos at random into a validation set and a test set of `--photos` photos each,
and new photos, the rest. It chooses the model with the highest accuracy, once on the test set and
once on the validation set, and compares the accuracy of that model on the test set and on the new
photos. If validation chose, both are photos that did not choose: they differ by luck alone.
"""

from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import typer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lesions.common import layout
from lesions.common.errors import LesionsError, run_cli
from lesions.common.params import load_params
from lesions.common.progress import progress
from lesions.common.types import Bools, Features, Floats, Labels
from lesions.dataset.description import load_description
from lesions.dataset.metadata import groups_of, read_table
from lesions.dataset.photos import PhotoArray
from lesions.reporting.render import interval, number
from studies.pitfalls import count_colours

STUDIES = 400
RESAMPLES, OF_RESAMPLE = 200, 20  # resamples of the lesions, and studies of each
SEEN = 24  # colours of the 512 that a model sees


class Optimism(NamedTuple):
    """What 400 studies report on their test sets, and what is true, for one way of choosing."""

    chosen_on: str
    reported: float  # mean accuracy of the chosen models on the test sets
    new: float  # and on the new photos
    low: float  # 95 % interval of the difference, over other lesions and other studies
    high: float


def main(
    models: Annotated[int, typer.Option(min=2, help="How many models to choose from.")] = 100,
    photos: Annotated[int, typer.Option(min=10, help="In validation and in test, each.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the colours and of the studies.")] = 0,
) -> None:
    """Choose among models on the test set and on the validation set, and see what it is worth."""
    found = study(models, photos, seed)
    print(
        f"{models} models; {STUDIES} studies with {photos} validation and {photos} test photos each"
    )
    print(as_text(found))


def study(models: int, photos: int, seed: int) -> list[Optimism]:
    """Fit the models on the training photos of data/, and imitate the studies.

    Raises:
        LesionsError: the split has too few validation and test photos.
    """
    params = load_params()
    dataset = load_description(params.dataset)
    array = PhotoArray(layout.RESIZED)

    def read(*paths: str) -> tuple[Features, Labels, pd.Series]:
        tables = [read_table(layout.SPLIT / path, "image_id", "dx") for path in paths]
        table = pd.concat(tables, ignore_index=True)
        colours = count_colours(array.images, array.rows(table["image_id"]))
        return colours, dataset.labels_of(table["dx"]), groups_of(table)

    train, labels, _ = read("train.csv")
    held_out, actual, groups = read("val.csv", "test.csv")
    if 3 * photos > len(actual):
        raise LesionsError(
            f"--photos {photos}: validation, test and new photos need three times as many, but "
            f"the split has {len(actual)} validation and test photos. At most {len(actual) // 3}."
        )
    right = fit(train, labels, held_out, models, seed) == actual
    return measure(right, groups.factorize()[0], photos, seed)


def fit(train: Features, labels: Labels, held_out: Features, models: int, seed: int) -> Labels:
    """Fit models on colours chosen at random, and predict: (models, n) class indices."""
    rng = np.random.default_rng(seed)
    present = np.flatnonzero(train.any(axis=0))
    predicted = []
    with progress(models, "models", "fit") as bar:
        for _ in range(models):
            seen = rng.choice(present, min(SEEN, len(present)), replace=False)
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
            predicted.append(model.fit(train[:, seen], labels).predict(held_out[:, seen]))
            bar.update()
    return np.stack(predicted)


def measure(right: Bools, lesions: Labels, photos: int, seed: int) -> list[Optimism]:
    """Imitate studies that choose a model on the test set, and on the validation set.

    Args:
        right: (models, n) whether a model predicts a photo right.
        lesions: (n,) the number of each photo's lesion or patient, from 0 on.
        photos: about how many are in a validation set and in a test set.
        seed: of the studies.
    """
    ways = ("the test set", "the validation set")
    rng = np.random.default_rng(seed)
    count = lesions.max() + 1

    def imitate(weights: Labels, studies: int) -> tuple[Floats, Floats]:
        found = [_study(right, lesions, weights, photos, rng) for _ in range(studies)]
        reported, new = np.swapaxes(found, 0, 1)
        return reported, new  # (studies, 2) each

    once = np.ones(count, dtype=np.int64)
    reported, new = imitate(once, STUDIES)
    # How much other lesions would change the mean: the variance between resamples of the lesions,
    # without what it has from their few studies. A resample repeats lesions, so its own mean is too
    # optimistic and does not count.
    means, within = [], []
    for _ in range(RESAMPLES):
        gains = np.subtract(*imitate(rng.multinomial(count, once / count), OF_RESAMPLE))
        means.append(gains.mean(axis=0))
        within.append(gains.var(axis=0, ddof=1))
    between = np.maximum(0, np.var(means, axis=0) - np.mean(within, axis=0) / OF_RESAMPLE)
    half = 1.96 * np.sqrt(between + (reported - new).var(axis=0) / STUDIES)
    return [
        Optimism(way, test, other, test - other - one, test - other + one)
        for way, test, other, one in zip(
            ways, reported.mean(axis=0), new.mean(axis=0), half, strict=True
        )
    ]


def _study(
    right: Bools, lesions: Labels, weights: Labels, photos: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Imitate one study: (2,) accuracies on test and (2,) on new photos, chosen on test and val."""
    # Whole lesions, in a random order, until the validation and the test set are full.
    order = rng.permutation(len(weights))[lesions]
    of_photo = weights[lesions]
    sizes = np.bincount(order, of_photo, len(weights))
    before = (np.cumsum(sizes) - sizes)[order]
    subsets = np.minimum(before // photos, 2).astype(int)  # validation, test, new
    counted = np.eye(3)[subsets] * of_photo[:, None]
    validation, test, new = (right @ counted / counted.sum(axis=0)).T
    chosen = [test.argmax(), validation.argmax()]
    return test[chosen], new[chosen]


def as_text(found: list[Optimism]) -> str:
    """Lay out the table as Markdown."""
    lines = [
        "| model chosen on | accuracy on the test set | on new photos | difference |",
        "|---|---|---|---|",
    ]
    for one in found:
        values = [number(value) for value in (one.reported, one.new, one.reported - one.new)]
        lines.append(f"| {one.chosen_on} | {' | '.join(values)} ({interval(one._asdict())}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(main)
