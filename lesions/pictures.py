"""Pictures: photos laid out for the eye, as PNG; DVC draws curves and bars itself."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from lesions.artifacts import replacing
from lesions.augmentation import augment, draw, to_unit
from lesions.diagnoses import CODES, DIAGNOSES
from lesions.networks import ARCHITECTURES, Classifier
from lesions.params import Augment
from lesions.photos import Pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Heat = npt.NDArray[np.float32]  # (s, s) in [0, 1], of one photo
DPI = 100
TILE = 1.15  # inches a photo
COLOURS = {diagnosis.code: diagnosis.colour for diagnosis in DIAGNOSES}


def _grid(rows: int, columns: int, title: str) -> "Figure":
    """Make a figure of bare squares; `figure.axes` holds them row by row."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(
        figsize=(columns * TILE + 0.6, rows * (TILE + 0.32) + 0.5), dpi=DPI, layout="constrained"
    )
    figure.suptitle(title, fontsize=11)
    for axis in np.atleast_1d(figure.subplots(rows, columns)).flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_visible(False)
    return figure


def write(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG of 256 colours, a third of the bytes; those of the diagnoses stay."""
    from matplotlib.colors import to_rgb

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as opened, replacing(path) as partial:
        image = opened.convert("RGB")
        fixed = [round(255 * share) for colour in COLOURS.values() for share in to_rgb(colour)]
        chosen = image.quantize(256 - len(COLOURS)).getpalette() or []
        palette = Image.new("P", (1, 1))
        palette.putpalette(chosen + fixed)
        reduced = image.quantize(palette=palette, dither=Image.Dither.NONE)
        reduced.save(partial, format="PNG", optimize=True)


def augmented(images: Pixels, rows: pd.DataFrame, settings: Augment, seed: int) -> "Figure":
    """Show training photos as the networks meet them: a row a diagnosis, six photos each.

    Args:
        images: (n, s, s, 3) uint8, of all photos.
        rows: the training manifest with a column `row`, into `images`.
        settings: of the augmentation.
        seed: of the changes and of which photos are shown.
    """
    import torch

    rng = np.random.default_rng(seed)
    present = [code for code in CODES if (rows["dx"] == code).any()]
    figure = _grid(len(present), 6, "Training photos after augmentation")
    axes = np.array(figure.axes).reshape(len(present), 6)
    for line, code in zip(axes, present, strict=True):
        own = rows.loc[rows["dx"] == code, "row"].to_numpy()
        chosen = rng.choice(own, len(line), replace=len(own) < len(line))
        changes = torch.from_numpy(draw(len(chosen), settings, rng))
        changed = augment(torch.from_numpy(images[chosen]), changes, settings)
        for axis, photo in zip(line, changed, strict=True):
            axis.imshow(photo.permute(1, 2, 0).numpy())
        line[0].set_ylabel(code, color=COLOURS[code], fontsize=12, fontweight="bold")
    return figure


def telling(images: Pixels, answers: pd.DataFrame, name: str, count: int = 7) -> "Figure":
    """Show the most confident mistakes above the least confident hits.

    Args:
        images: (n, s, s, 3) uint8, of all photos.
        answers: predictions.csv with a column `row`, into `images`.
        name: of the model.
        count: how many of each.
    """
    sure = answers[list(CODES)].astype(float).max(axis=1)
    wrong = answers["actual"] != answers["predicted"]
    mistakes = answers.loc[sure[wrong].sort_values(ascending=False, kind="stable").index[:count]]
    hits = answers.loc[sure[~wrong].sort_values(kind="stable").index[:count]]
    figure = _grid(2, count, f"{name}: most confident mistakes, least confident hits")
    for line, chosen in zip(np.array(figure.axes).reshape(2, count), (mistakes, hits), strict=True):
        chosen = chosen.assign(sure=sure[chosen.index])
        columns = (chosen[name] for name in ("row", "actual", "predicted", "sure"))
        for axis, (row, true, said, share) in zip(line, zip(*columns, strict=True), strict=False):
            axis.imshow(images[row])
            axis.set_title(f"{true}, said\n{said} {share:.2f}", fontsize=8)
    for start, word in ((0, "wrong"), (count, "right")):
        figure.axes[start].set_ylabel(word, fontsize=11)
    return figure


def heat(classifier: Classifier, photos: Pixels, labels: Sequence[int]) -> Heat:
    """Find what speaks for a diagnosis in each photo, by Grad-CAM.

    Selvaraju et al. 2017 (arXiv 1610.02391), at the network's last feature map, by captum.

    Args:
        classifier: with a network of torchvision's.
        photos: (b, s, s, 3) uint8.
        labels: (b,) the diagnosis asked about.

    Returns:
        (b, s, s) float32 between 0 and 1: the share of the photo's strongest place.
    """
    import torch
    from captum.attr import LayerAttribution, LayerGradCam

    features = ARCHITECTURES[classifier.card.architecture].features
    images = classifier.normalise(to_unit(torch.from_numpy(photos).to(classifier.place)))
    cam = LayerGradCam(classifier.network, classifier.network.get_submodule(features))
    target = torch.tensor(list(labels), device=classifier.place)
    with torch.enable_grad():
        found = cam.attribute(images.requires_grad_(), target, relu_attributions=True)
    size = photos.shape[1]
    wide = LayerAttribution.interpolate(found, (size, size), "bilinear")[:, 0].detach().cpu()
    strongest = wide.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return np.asarray((wide / strongest).numpy())


def warmed(photo: Pixels, heat: Heat) -> Pixels:
    """Lay a heat map, (s, s) in [0, 1], over its photo, (s, s, 3) uint8."""
    from matplotlib import colormaps

    share = 0.45 * heat[..., None]
    colours = 255 * colormaps["inferno"](heat)[..., :3]
    mixed: Pixels = (photo * (1 - share) + colours * share).round().astype(np.uint8)
    return mixed


def heatmaps(
    classifiers: list[Classifier], images: Pixels, answers: list[pd.DataFrame], each: int = 2
) -> "Figure":
    """Show what each model looked at for its own answer: photos, and below them every model.

    Args:
        classifiers: a row each.
        images: (n, s, s, 3) uint8, of all photos.
        answers: predictions.csv of each, with a column `row`, into `images`.
        each: photos a diagnosis, the first of the test set.
    """
    places = answers[0].groupby("actual").cumcount()
    present = [code for code in CODES if (answers[0]["actual"] == code).any()]
    blocks, height = min(each, int(places.max()) + 1), 1 + len(classifiers)
    figure = _grid(blocks * height, len(present), "Grad-CAM: what speaks for the answer")
    axes = np.array(figure.axes).reshape(blocks, height, len(present))
    for number, block in enumerate(axes):
        chosen = np.flatnonzero(places == number)
        actual = answers[0]["actual"].iloc[chosen]
        columns = [present.index(code) for code in actual]
        photos = images[answers[0]["row"].iloc[chosen]]
        for axis, photo, code in zip(block[0, columns], photos, actual, strict=True):
            axis.imshow(photo)
            axis.set_title(code, color=COLOURS[code], fontsize=10, fontweight="bold")
        for line, classifier, own in zip(block[1:], classifiers, answers, strict=True):
            said = own["predicted"].iloc[chosen]
            maps = heat(classifier, photos, [CODES.index(code) for code in said])
            for axis, photo, warm, code in zip(line[columns], photos, maps, said, strict=True):
                axis.imshow(warmed(photo, warm))
                axis.set_title(code, color=COLOURS[code], fontsize=8)
            line[0].set_ylabel(ARCHITECTURES[classifier.card.architecture].title, fontsize=10)
    return figure
