"""The leak, measured in seconds: what a split by photo reports, and a split by lesion.

    dvc exp run -S source=FOLDER -S image_size=128 split
    python -m studies.pitfalls

Nothing is trained. Each photo gets the class of its nearest neighbour, by the features of a network
as it is before training. Every photo is predicted twice, in five folds each: with the photos drawn
one by one, so that photos of one lesion (or patient) are on both sides, and with whole lesions. The
photos are the same, so the difference is due to the leak alone. Lesions that were photographed once
are the control: they cannot leak.

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
from lesions.common.types import Bools, Features, Floats, Labels, Pixels
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
    params = load_params()
    dataset = load_description(params.dataset)
    # The photos of the split, with the lesions that it has joined.
    subsets = (layout.TRAIN_TABLE, layout.VAL_TABLE, layout.TEST_TABLE)
    table = pd.concat([read_table(path, "image_id", "lesion_id", "dx") for path in subsets])
    table = choose(table.reset_index(drop=True), most, seed)
    photos = PhotoArray(layout.RESIZED)
    groups = groups_of(table).to_numpy(dtype=str)
    labels = dataset.labels_of(table["dx"])
    features = embed(photos.images, photos.rows(table["image_id"]), params, model)
    word = group_word(table)
    leaks, shared = measure(features, labels, groups, len(dataset.classes), seed, word)
    start = f"{params.starting_weights(model)} weights, {photos.size} px"
    print(
        f"{len(table):,} photos of {len(set(groups)):,} {word}s; features of "
        f"{params.network(model).title} before training ({start}); {FOLDS} folds, seed {seed}"
    )
    print(f"drawn by photo, {shared:.0%} of the nearest neighbours show the same {word}")
    print(as_text(leaks, word))


def choose(table: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Take whole lesions or patients at random, until a class has about `most` photos."""
    groups = groups_of(table)
    order = np.random.default_rng(seed).permutation(np.sort(groups.unique()))
    place = groups.map({group: number for number, group in enumerate(order)})
    ordered = table.assign(place=place).sort_values(["place", "image_id"])
    before = ordered.groupby("dx").cumcount()
    first = ordered.assign(before=before).groupby("place")["before"].transform("min")
    return ordered[first < most].drop(columns="place").reset_index(drop=True)


def embed(images: Pixels, rows: npt.NDArray[np.int64], params: Params, model: str) -> Features:
    """Compute the features of a network before training: (n, f), rows of length 1."""
    spec, weights = params.network(model), params.starting_weights(model)
    device = hardware.set_up(params.device, "fp32", params.deterministic).device
    network = architectures.build(spec, 2, weights, params.seed).to(device).eval()
    body = network.get_submodule(spec.features)
    loader = PhotoLoader(images, device)
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in channel_statistics(loader, rows)
    )
    batches = split_into_batches(rows, BATCH_SIZE)

    def run() -> Features:
        found = []
        with torch.inference_mode(), progress(len(rows), "photos", "features") as bar:
            for batch in loader(batches):
                maps = body((to_float(batch) - mean) / std)
                found.append(F.normalize(maps.mean(dim=(2, 3))).cpu())
                bar.update(len(batch))
        features: Features = torch.cat(found).numpy()
        return features

    if weights == "random":  # batch norm has to see the photos first
        body.train()
        run()
        body.eval()
    return run()


def measure(
    features: Features,
    labels: Labels,
    groups: npt.NDArray[np.str_],
    classes: int,
    seed: int,
    word: str = "lesion",
) -> tuple[list[Leak], float]:
    """Predict every photo under both splits, and compare.

    Args:
        features: (n, f) rows of length 1.
        labels: (n,) class indices.
        groups: (n,) the lesion or patient of each photo.
        classes: how many there are.
        seed: of the folds.
        word: what the groups are.

    Returns:
        All photos, those of lesions photographed once (the control) and the others; and the share
        of the photos whose nearest neighbour in the leaking split shows the same lesion.

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
    leaking, honest = nearest(features, by_photo), nearest(features, by_group)
    sizes = pd.Series(groups).map(pd.Series(groups).value_counts()).to_numpy()
    parts = {
        "all": np.ones(len(labels), dtype=bool),
        f"{word}s with one photo": sizes == 1,
        f"{word}s with several": sizes > 1,
    }
    leaks = [
        compare(name, labels[leaking], labels[honest], labels, groups, part, classes)
        for name, part in parts.items()
        if part.any()
    ]
    return leaks, float((groups[leaking] == groups).mean())


def nearest(features: Features, folds: Iterator[Any]) -> npt.NDArray[np.int64]:
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
