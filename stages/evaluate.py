"""Stage evaluate: the only reader of the test photos."""

from pathlib import Path
from typing import Annotated

import typer

from lesions import hardware, scoring
from lesions.artifacts import write_csv, write_json
from lesions.batches import Batches
from lesions.diagnoses import labels_of
from lesions.errors import LesionsError, run
from lesions.inference import predict
from lesions.metadata import read_table
from lesions.networks import load
from lesions.params import load_params
from lesions.photos import PhotoArray


def main(models: Annotated[list[str], typer.Argument(help="The models, as trained.")]) -> None:
    """Score MODELS on data/split/test.csv: metrics/<model>.json and plots/<model>/."""
    params = load_params()
    hardware.compute_deterministically(params.deterministic)
    place = hardware.pick_device(params.device)
    photos = PhotoArray(Path("data/resized"))
    test = read_table(Path("data/split/test.csv"))
    batches, labels = Batches(photos.images, place), labels_of(test)
    rows = photos.rows(test["image_id"])
    for model in models:
        path = Path(f"models/{model}.safetensors")
        classifier = load(path, place, hardware.use_bf16(params.precision, place))
        if (classifier.card.architecture, classifier.card.image_size) != (model, photos.size):
            raise LesionsError(
                f"{path}: {classifier.card.architecture} for {classifier.card.image_size} px, not "
                f"{model} for the {photos.size} px of data/resized. Run `dvc repro`."
            )
        probabilities = classifier.probabilities(predict(classifier, batches, rows))
        plots = Path("plots") / model
        table = scoring.per_class(probabilities, labels)
        write_json(Path(f"metrics/{model}.json"), scoring.headline(probabilities, labels))
        write_csv(plots / "predictions.csv", scoring.predictions(test, probabilities, labels))
        write_csv(plots / "per_class.csv", table.round(4))
        print(f"\n{model} on {len(test)} test photos\n{scoring.report(table)}")


if __name__ == "__main__":
    run(main)
