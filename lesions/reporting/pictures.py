"""Pictures: sheets of photos as PNG; DVC draws curves and bars itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure  # without pyplot: no window, no global state

from lesions.common.artifacts import atomic_write
from lesions.common.params import Augment
from lesions.common.types import Pixels
from lesions.dataset.photos import PhotoArray
from lesions.evaluation.evaluation import Evaluation
from lesions.evaluation.predictions import as_table
from lesions.networks.augmentation import augment, random_changes
from lesions.networks.classifier import Classifier
from lesions.networks.model_file import TrainedModel
from lesions.reporting.heatmaps import grad_cam, overlay

DPI = 100
TILE = 1.15  # inches per photo
SHOWN = 12  # classes on one sheet
HEATMAP_TITLE = "Photo with its class; below it, the regions that support each prediction"


def _grid(rows: int, columns: int, title: str) -> tuple[Figure, np.ndarray]:
    """Make a figure of `rows` × `columns` empty squares, and return them as an array."""
    size = (columns * TILE + 0.6, rows * (TILE + 0.32) + 0.5)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_visible(False)
    return figure, axes


def write_picture(path: Path, figure: Figure) -> None:
    """Write a figure as PNG."""
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png")


def write_sheets(
    folder: Path,
    photos: PhotoArray,
    train: pd.DataFrame,
    models: Mapping[str, TrainedModel],
    evaluation: Evaluation,
    augmentation: Augment,
    seed: int,
) -> None:
    """Write augmented.png, extreme_cases.png and heatmaps.png to a folder.

    Args:
        folder: where to.
        photos: all photos.
        train: the training photos: image_id, dx.
        models: the networks that were evaluated.
        evaluation: on the test photos.
        augmentation: the settings of training.
        seed: of the choice of training photos.
    """
    classes = evaluation.dataset.classes
    rows = train.assign(row=photos.rows(train["image_id"]))
    sheet = augmented_photos(photos.images, rows, classes, augmentation, seed)
    write_picture(folder / "augmented.png", sheet)
    tables = {}
    for name in models:
        table = as_table(evaluation.predictions[name])
        tables[evaluation.titles[name]] = table.assign(row=photos.rows(table["image_id"]))
    write_picture(folder / "extreme_cases.png", extreme_cases(photos.images, tables))
    classifiers = [model.classifier for model in models.values()]
    sheet = heatmap_sheet(classifiers, photos.images, list(tables.values()))
    write_picture(folder / "heatmaps.png", sheet)


def augmented_photos(
    images: Pixels, rows: pd.DataFrame, classes: Sequence[str], settings: Augment, seed: int
) -> Figure:
    """Show training photos as the networks get them: one row per class, six photos each.

    Args:
        images: (n, s, s, 3) uint8, all photos.
        rows: the training photos, with a column `row` that indexes `images`.
        classes: in their order; the first SHOWN of them are shown.
        settings: of the augmentation.
        seed: of the random changes and of the choice of photos.
    """
    rng = np.random.default_rng(seed)
    present = [code for code in classes if (rows["dx"] == code).any()][:SHOWN]
    figure, axes = _grid(len(present), 6, "Training photos after augmentation")
    for line, code in zip(axes, present, strict=True):
        of_class = rows.loc[rows["dx"] == code, "row"].to_numpy()
        chosen = rng.choice(of_class, len(line), replace=len(of_class) < len(line))
        changes = torch.from_numpy(random_changes(len(chosen), settings, rng))
        changed = augment(torch.from_numpy(images[chosen]), changes, settings)
        for axis, photo in zip(line, changed, strict=True):
            axis.imshow(photo.permute(1, 2, 0).numpy())
        line[0].set_ylabel(code, fontsize=12, fontweight="bold")
    return figure


def extreme_cases(
    images: Pixels, predictions: Mapping[str, pd.DataFrame], count: int = 7
) -> Figure:
    """Show each model's most confident wrong and least confident correct predictions.

    Args:
        images: (n, s, s, 3) uint8, all photos.
        predictions: title of each model to its predictions.csv, with a column `row` that indexes
            `images`.
        count: photos of each kind.
    """
    figure, axes = _grid(
        2 * len(predictions), count, "Most confident wrong, least confident correct predictions"
    )
    for pair, (title, table) in zip(axes.reshape(-1, 2, count), predictions.items(), strict=True):
        wrong = table["actual"] != table["predicted"]
        worst = table[wrong].sort_values("confidence", ascending=False, kind="stable")[:count]
        closest = table[~wrong].sort_values("confidence", kind="stable")[:count]
        for line, cases, kind in zip(pair, (worst, closest), ("wrong", "correct"), strict=True):
            line[0].set_ylabel(f"{title}\n{kind}", fontsize=10)
            for axis, case in zip(line, cases.to_dict("records"), strict=False):
                axis.imshow(images[case["row"]])
                text = f"actual {case['actual']}\n{case['predicted']} {case['confidence']:.2f}"
                axis.set_title(text, fontsize=8)
    return figure


def heatmap_sheet(
    classifiers: Sequence[Classifier],
    images: Pixels,
    predictions: Sequence[pd.DataFrame],
    per_class: int = 2,
) -> Figure:
    """Show test photos, and below each photo the heat map of every model's prediction.

    Args:
        classifiers: one row of heat maps each.
        images: (n, s, s, 3) uint8, all photos.
        predictions: predictions.csv of each, with a column `row` that indexes `images`.
        per_class: photos per class, the first of the test set.
    """
    table = predictions[0]
    number_in_class = table.groupby("actual").cumcount()
    classes = classifiers[0].card.classes
    present = [code for code in classes if (table["actual"] == code).any()][:SHOWN]
    # As many photos of each class as the rarest one has: no half-empty rows.
    fewest = int(table["actual"].value_counts()[present].min())
    blocks, height = min(per_class, fewest), 1 + len(classifiers)
    figure, axes = _grid(blocks * height, len(present), HEATMAP_TITLE)
    for number, block in enumerate(axes.reshape(blocks, height, len(present))):
        # One photo per class.
        chosen = np.flatnonzero((number_in_class == number) & table["actual"].isin(present))
        actual = table["actual"].iloc[chosen]
        columns = [present.index(code) for code in actual]
        photos = images[table["row"].iloc[chosen]]
        for axis, photo, code in zip(block[0, columns], photos, actual, strict=True):
            axis.imshow(photo)
            axis.set_title(code, fontsize=10, fontweight="bold")
        # Below it, one heat map per model.
        for line, classifier, own in zip(block[1:], classifiers, predictions, strict=True):
            predicted = own["predicted"].iloc[chosen]
            maps = grad_cam(classifier, photos, [classes.index(code) for code in predicted])
            shown = photos if maps is None else map(overlay, photos, maps)
            for axis, picture, code in zip(line[columns], shown, predicted, strict=True):
                axis.imshow(picture)
                axis.set_title(code, fontsize=9)
            lacking = "\n(too small)" if maps is None else ""
            line[0].set_ylabel(f"{classifier.card.network.title}{lacking}", fontsize=10)
    _add_heat_scale(figure, axes)
    return figure


def _add_heat_scale(figure: Figure, axes: np.ndarray) -> None:
    """Add a colour bar: what more and less heat looks like, over a grey ground."""
    grey = np.full((1, 256, 3), 170, np.uint8)
    colours = overlay(grey, np.linspace(0, 1, 256, dtype=np.float32)[None])[0] / 255
    scale = ScalarMappable(cmap=ListedColormap(colours))
    bar = figure.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.4, aspect=40)
    bar.set_ticks([0, 1], labels=["does not support it", "supports it most"], fontsize=9)
