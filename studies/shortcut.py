"""Shortcut: what a network learns when most training photos of a group have a ruler on them.

    make shortcut                                                   on the teaching sample
    python -m studies.shortcut -S source=FOLDER -S image_size=96    on real photos

It trains one network twice from the same start, once on the photos as they are and once with rulers
on `--share` of the training photos of the watched group (the parameter `shortcut`). Then it
predicts every validation and test photo twice: as it is, and with a ruler. The lesion is the same,
so a difference is due to the ruler alone. With rulers on the same share of the group and on no
other photo, it shows what a test reports if its photos have the shortcut too. It prints a table,
and writes it and a picture to `--folder`, from 128 px on with heat maps.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from matplotlib.figure import Figure

from lesions.common.artifacts import write_csv
from lesions.common.errors import run_cli
from lesions.common.params import Params
from lesions.common.types import Pixels
from lesions.dataset.description import Description, load_description
from lesions.dataset.metadata import groups_of, read_table
from lesions.dataset.photos import PhotoArray
from lesions.dataset.shortcut import choose_photos, draw_ruler
from lesions.networks import hardware
from lesions.networks.batches import PhotoLoader
from lesions.networks.classifier import Classifier
from lesions.networks.inference import run_inference
from lesions.networks.model_file import load
from lesions.reporting.heatmaps import grad_cam, overlay
from lesions.reporting.pictures import write_picture
from lesions.reporting.render import number
from lesions.scoring.operating_points import score
from studies.trainings import SetParam, read_params, train

Probabilities = npt.NDArray[np.float64]
WITHOUT, AS_TRAINED, ON_ALL = "no rulers", "rulers as in training", "rulers on all"


class HeldOut(NamedTuple):
    """The validation and test photos, each as it is and with a ruler."""

    dataset: Description
    labels: npt.NDArray[np.int64]  # (n,)
    lesions: npt.NDArray[np.str_]  # (n,) or patients
    planted: npt.NDArray[np.bool_]  # (n,) which have a ruler if it is planted as in training
    plain: Pixels  # (n, s, s, 3)
    ruled: Pixels  # the same photos


def main(
    set_param: SetParam = None,
    model: Annotated[str, typer.Option(help="A network in params.yaml.")] = "mobilenetv2",
    share: Annotated[float, typer.Option(min=0, max=1, help="Of the watched group.")] = 0.8,
    folder: Annotated[Path, typer.Option(help="Where trained models are kept.")] = Path("shortcut"),
) -> None:
    """Train with and without a planted shortcut, and predict photos with and without a ruler."""
    found = study(read_params(set_param or [], model), model, share, folder)
    write_csv(folder / "shortcut.csv", found.table)
    write_picture(folder / "shortcut.png", found.picture)
    print(as_text(found.table))
    print(f"{len(found.photos.labels)} validation and test photos; {folder}/shortcut.csv and .png")


class Study(NamedTuple):
    """What `study` finds."""

    table: pd.DataFrame
    photos: HeldOut
    # Of the networks trained without and with rulers: (n, classes) for each kind of test
    probabilities: list[dict[str, Probabilities]]
    picture: Figure


def study(params: Params, model: str, share: float, folder: Path) -> Study:
    """Train with and without a planted shortcut, and predict photos with and without a ruler."""
    names = {"photos as they are": 0.0, f"rulers on {share:.0%}": share}
    places = {
        name: train(folder, params.model_copy(update={"shortcut": planted}), model)
        for name, planted in names.items()
    }
    used = hardware.set_up(params.device, "fp32", params.deterministic)
    dataset = load_description(params.dataset)
    watched = dataset.watched or next(iter(dataset.groups))
    # Both trainings have the same split.
    photos = held_out_photos(next(iter(places.values())), dataset, watched, share, params.seed)
    rows, probabilities = [], []
    for trained_on, place in places.items():
        classifier = load(place / f"models/{model}.safetensors", used, model).classifier
        plain, ruled = predict(classifier, photos.plain), predict(classifier, photos.ruled)
        planted = np.where(photos.planted[:, None], ruled, plain)
        probabilities.append({WITHOUT: plain, AS_TRAINED: planted, ON_ALL: ruled})
        for tested_with, scores in probabilities[-1].items():
            found = count(scores, photos, watched)
            rows.append({"trained on": trained_on, "tested with": tested_with, **found})
    network = params.networks[model].title
    title = f"{network},\ntrained with rulers on {share:.0%} of {watched} photos"
    picture = draw(classifier, photos, watched, plain, ruled, title)
    return Study(pd.DataFrame(rows), photos, probabilities, picture)


def held_out_photos(
    place: Path, dataset: Description, group: str, share: float, seed: int
) -> HeldOut:
    """Read the validation and test photos of a training, and draw a ruler on a copy of each.

    Args:
        place: the folder of the training.
        dataset: names the classes.
        group: whose photos get rulers if they are planted as in training.
        share: of these photos.
        seed: of the choice.
    """
    paths = (place / f"data/split/{name}.csv" for name in ("val", "test"))
    tables = [read_table(path, "image_id", "lesion_id", "dx") for path in paths]
    table = pd.concat(tables, ignore_index=True)
    photos = PhotoArray(place / "data/resized")
    plain = np.array(photos.images[photos.rows(table["image_id"])])
    lesions = groups_of(table).to_numpy(dtype=str)
    chosen = choose_photos(table, dataset.groups[group], share, seed)
    planted = table["image_id"].isin(chosen).to_numpy()
    labels = dataset.labels_of(table["dx"])
    return HeldOut(dataset, labels, lesions, planted, plain, draw_ruler(plain))


def predict(classifier: Classifier, images: Pixels) -> Probabilities:
    """Compute the calibrated probabilities of photos: (n, classes)."""
    loader = PhotoLoader(images, classifier.device)
    logits = run_inference(classifier, loader, np.arange(len(images))).logits
    return classifier.card.use(1).calibration.probabilities(logits)


def count(probabilities: Probabilities, photos: HeldOut, group: str) -> dict[str, object]:
    """Count correct photos, found ones of a group, and others predicted as it."""
    members = photos.dataset.indices(group)
    predicted, cases = probabilities.argmax(axis=1), np.isin(photos.labels, members)
    called, scores = np.isin(predicted, members), score(probabilities, members)
    return {
        "accuracy": round(float((predicted == photos.labels).mean()), 3),
        f"{group} found": f"{(called & cases).sum()} of {cases.sum()}",
        f"others predicted as {group}": f"{(called & ~cases).sum()} of {(~cases).sum()}",
        f"mean probability of {group} of the others": round(float(scores[~cases].mean()), 3),
    }


def as_text(table: pd.DataFrame) -> str:
    """Lay out the table as Markdown."""
    texts = table.map(lambda cell: number(cell) if isinstance(cell, float) else str(cell))
    lines = [list(table.columns), ["---"] * table.shape[1], *texts.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw(
    classifier: Classifier,
    photos: HeldOut,
    group: str,
    plain: Probabilities,
    ruled: Probabilities,
    title: str,
) -> Figure:
    """Draw the three photos whose probability of a group the ruler raises most.

    Each without and with the ruler; next to it the regions that support the group's first class, if
    photos of this size have a heat map.
    """
    members = photos.dataset.indices(group)
    before, after = score(plain, members), score(ruled, members)
    cases = np.argsort(before - after, kind="stable")[:3]
    heats = [
        grad_cam(classifier, images[cases], members[:1] * len(cases))
        for images in (photos.plain, photos.ruled)
    ]
    width = 1 if heats[0] is None else 2  # columns per photo
    figure = Figure(figsize=(4 * width, 2.3 * len(cases)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(cases), 2 * width, squeeze=False)
    for line, (row, case) in enumerate(zip(axes, cases, strict=True)):
        pairs = ((photos.plain, before, heats[0]), (photos.ruled, after, heats[1]))
        for start, (images, scores, heat) in enumerate(pairs):
            axis = row[start * width]
            axis.imshow(images[case])
            axis.set_title(f"{group} {scores[case]:.2f}", fontsize=10)
            if heat is not None:
                axis = row[start * width + 1]
                axis.imshow(overlay(images[case], heat[line]))
                axis.set_title(f"supports {group}", fontsize=10)
        row[0].set_ylabel(photos.dataset.classes[photos.labels[case]])
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
    return figure


if __name__ == "__main__":
    run_cli(main)
