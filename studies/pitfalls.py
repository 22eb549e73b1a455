"""The leak, measured in seconds: what a split by photo reports, and a split by lesion.

    dvc exp run -S source=FOLDER -S image_size=128 split
    python -m studies.pitfalls

Nothing is trained. Each photo gets the class of its nearest neighbour, by the features of a network
with ImageNet weights, or by its colours if the network would start from random weights. Every photo
is predicted twice, in five folds each: with the photos drawn one by one, so that photos of one
lesion (or patient) are on both sides, and with whole lesions. The photos are the same, so the
difference is due to the leak alone. Lesions that were photographed once cannot leak: they are the
control.

A nearest neighbour gains more from a leak than a network does that is trained: it is all memory.
"""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
import typer
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from lesions.common import layout
from lesions.common.errors import LesionsError, run_cli
from lesions.common.params import Params, load_params
from lesions.common.progress import progress
from lesions.common.types import Bools, Features, Floats, Labels, Pixels, Rows
from lesions.dataset.description import load_description
from lesions.dataset.metadata import group_word, groups_of, read_table
from lesions.dataset.photos import PhotoArray
from lesions.networks import architectures, hardware
from lesions.networks.augmentation import to_float
from lesions.networks.batches import PhotoLoader, channel_statistics, split_into_batches
from lesions.networks.inference import BATCH_SIZE
from lesions.reporting.render import interval, number
from lesions.scoring.intervals import bootstrap_weights, percentile_interval
from lesions.scoring.metrics import confusion_matrices, mean_of_known, sensitivities

FOLDS = 5
COLOURS = 8  # steps of red, of green and of blue


class Leak(NamedTuple):
    """One part of the photos, predicted under both splits."""

    part: str
    photos: int
    leaking: float  # balanced accuracy with the photos drawn one by one
    honest: float  # with whole lesions
    low: float  # 95 % interval of the difference, from a bootstrap over lesions
    high: float


def main(
    model: Annotated[str, typer.Option(help="A network in params.yaml.")] = "mobilenetv2",
    seed: Annotated[int, typer.Option(help="Of the folds and of the choice of photos.")] = 0,
    most: Annotated[
        int, typer.Option(min=10, help="Photos of each class, at most; whole lesions.")
    ] = 1200,
) -> None:
    """Predict the photos of data/ by their nearest neighbours, under both splits."""
    print(study(model, seed, most).text)


class Study(NamedTuple):
    """What `study` finds, and all that it was found with."""

    leaks: list[Leak]
    text: str
    table: pd.DataFrame  # n photos
    leaking: Rows  # (n,) the row of each photo's nearest neighbour
    honest: Rows


def study(model: str, seed: int, most: int) -> Study:
    """Predict the photos of data/ by their nearest neighbours, under both splits."""
    params = load_params()
    dataset = load_description(params.dataset)
    # The photos of the split, with the lesions that it has joined.
    subsets = (layout.TRAIN_TABLE, layout.VAL_TABLE, layout.TEST_TABLE)
    table = pd.concat([read_table(path, "image_id", "lesion_id", "dx") for path in subsets])
    table = choose(table.reset_index(drop=True), most, seed)
    photos = PhotoArray(layout.RESIZED)
    groups = groups_of(table).to_numpy(dtype=str)
    labels = dataset.labels_of(table["dx"])
    rows = photos.rows(table["image_id"])
    if params.starting_weights(model) == "random":  # its features would say nothing
        features, kind = count_colours(photos.images, rows), f"counts of {COLOURS**3} colours"
    else:
        features = embed(photos.images, rows, params, model)
        kind = f"features of {params.network(model).title} before training"
    word = group_word(table)
    leaking, honest = neighbours(features, labels, groups, seed, word)
    leaks = measure(labels, groups, leaking, honest, len(dataset.classes), word)
    shared = (groups[leaking] == groups).mean()
    text = (
        f"{len(table):,} photos of {len(set(groups)):,} {word}s at {photos.size} px; {kind}; "
        f"{FOLDS} folds, seed {seed}\n"
        f"drawn by photo, {shared:.0%} of the nearest neighbours show the same {word}\n"
        f"{as_text(leaks, word)}"
    )
    return Study(leaks, text, table, leaking, honest)


def choose(table: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Take whole lesions or patients at random, until a class has about `most` photos."""
    groups = groups_of(table)
    order = np.random.default_rng(seed).permutation(np.sort(groups.unique()))
    place = groups.map({group: number for number, group in enumerate(order)})
    ordered = table.assign(place=place).sort_values(["place", "image_id"])
    before = ordered.groupby("dx").cumcount()
    first = ordered.assign(before=before).groupby("place")["before"].transform("min")
    return ordered[first < most].drop(columns="place").reset_index(drop=True)


def count_colours(images: Pixels, rows: Rows) -> Features:
    """Count the pixels of each colour of a grid: (n, COLOURS³), rows of length 1.

    Of the counts the square root, so that the similarity of two photos is the Bhattacharyya
    coefficient of their histograms.
    """
    bins = COLOURS ** np.arange(3)
    counts = [
        np.bincount((images[row] // (256 // COLOURS) @ bins).ravel(), minlength=COLOURS**3)
        for row in rows
    ]
    features: Features = np.sqrt(np.stack(counts)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def embed(images: Pixels, rows: Rows, params: Params, model: str) -> Features:
    """Compute the features of a network before training: (n, f), rows of length 1."""
    spec = params.network(model)
    device = hardware.set_up(params.device, "fp32", params.deterministic).device
    network = architectures.build(spec, 2, "imagenet", params.seed).to(device).eval()
    body = network.get_submodule(spec.features)
    loader = PhotoLoader(images, device)
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in channel_statistics(loader, rows)
    )
    batches = split_into_batches(rows, BATCH_SIZE)
    found = []
    with torch.inference_mode(), progress(len(rows), "photos", "features") as bar:
        for batch in loader(batches):
            maps = body((to_float(batch) - mean) / std)
            found.append(F.normalize(maps.mean(dim=(2, 3))).cpu())
            bar.update(len(batch))
    features: Features = torch.cat(found).numpy()
    return features


def neighbours(
    features: Features, labels: Labels, groups: npt.NDArray[np.str_], seed: int, word: str
) -> tuple[Rows, Rows]:
    """Find each photo's nearest neighbour in the other folds of both splits.

    Args:
        features: (n, f) rows of length 1.
        labels: (n,) class indices.
        groups: (n,) the lesion or patient of each photo.
        seed: of the folds.
        word: what the groups are.

    Returns:
        (n,) rows, if the photos are drawn one by one, and (n,) if they are drawn by group.

    Raises:
        LesionsError: a class has fewer lesions than FOLDS.
    """
    lesions = pd.Series(groups).groupby(labels).nunique()
    if lesions.min() < FOLDS:
        raise LesionsError(f"a class has {lesions.min()} {word}s; {FOLDS} are needed.")
    by_photo = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels)
    by_group = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(
        features, labels, groups
    )
    return nearest(features, by_photo), nearest(features, by_group)


def measure(
    labels: Labels,
    groups: npt.NDArray[np.str_],
    leaking: Rows,
    honest: Rows,
    classes: int,
    word: str,
) -> list[Leak]:
    """Compare the predictions under both splits.

    Args:
        labels: (n,) class indices.
        groups: (n,) the lesion or patient of each photo.
        leaking, honest: as from `neighbours`.
        classes: how many there are.
        word: what the groups are.

    Returns:
        All photos, those of lesions photographed once (the control), and the others.
    """
    sizes = pd.Series(groups).map(pd.Series(groups).value_counts()).to_numpy()
    parts = {
        "all": np.ones(len(labels), dtype=bool),
        f"{word}s with one photo": sizes == 1,
        f"{word}s with several": sizes > 1,
    }
    return [
        compare(name, labels[leaking], labels[honest], labels, groups, part, classes)
        for name, part in parts.items()
        if part.any()
    ]


def nearest(features: Features, folds: Iterator[Any]) -> Rows:
    """Find the most similar photo of the other folds, for each: (n,) indices."""
    found = np.zeros(len(features), dtype=np.int64)
    for others, held_out in folds:
        found[held_out] = others[(features[held_out] @ features[others].T).argmax(axis=1)]
    return found


def compare(
    name: str,
    leaking: Labels,
    honest: Labels,
    labels: Labels,
    groups: npt.NDArray[np.str_],
    part: Bools,
    classes: int,
) -> Leak:
    """Compare two predictions of the same photos, of those in a part."""
    actual, owners = labels[part], groups[part]

    def scores(predicted: Labels, weights: Floats) -> Floats:
        confusion = confusion_matrices(predicted[part], actual, weights, classes)
        return mean_of_known(sensitivities(confusion))

    once = np.ones((1, len(actual)))
    samples = [
        scores(leaking, weights) - scores(honest, weights) for weights in bootstrap_weights(owners)
    ]
    low, high = percentile_interval(np.concatenate(samples))
    return Leak(
        name,
        int(part.sum()),
        float(scores(leaking, once)[0]),
        float(scores(honest, once)[0]),
        low,
        high,
    )


def as_text(leaks: list[Leak], word: str) -> str:
    """Lay out the table as Markdown."""
    lines = [
        f"| balanced accuracy | photos | split by photo | split by {word} | difference |",
        "|---|---|---|---|---|",
    ]
    for leak in leaks:
        values = [number(one) for one in (leak.leaking, leak.honest, leak.leaking - leak.honest)]
        ends = interval(leak._asdict())
        lines.append(f"| {leak.part} | {leak.photos:,} | {' | '.join(values)} ({ends}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(main)
