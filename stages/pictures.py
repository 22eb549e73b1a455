"""Stage pictures: what the models are shown, where they fail, and what they look at."""

from pathlib import Path
from typing import Annotated

import typer

from lesions import pictures
from lesions.errors import run
from lesions.hardware import pick_device
from lesions.metadata import read_table
from lesions.networks import ARCHITECTURES, load
from lesions.params import load_params
from lesions.photos import PhotoArray


def main(models: Annotated[list[str], typer.Argument(help="The models, as evaluated.")]) -> None:
    """Lay out training photos, answers of MODELS and heat maps as PNG in plots/."""
    params = load_params()
    place = pick_device(params.device)
    photos = PhotoArray(Path("data/resized"))
    train = read_table(Path("data/split/train.csv"), "image_id", "dx")
    train["row"] = photos.rows(train["image_id"])
    sheet = pictures.augmented(photos.images, train, params.augment, params.seed)
    pictures.write(Path("plots/augmented.png"), sheet)
    classifiers, answers = [], []
    for model in models:
        own = read_table(Path(f"plots/{model}/predictions.csv"), "image_id")
        own["row"] = photos.rows(own["image_id"])
        told = pictures.telling(photos.images, own, ARCHITECTURES[model].title)
        pictures.write(Path(f"plots/{model}/telling.png"), told)
        answers.append(own)
        classifiers.append(load(Path(f"models/{model}.safetensors"), place, False, model))
    maps = pictures.heatmaps(classifiers, photos.images, answers)
    pictures.write(Path("plots/heatmaps.png"), maps)


if __name__ == "__main__":
    run(main)
