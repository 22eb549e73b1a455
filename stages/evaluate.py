"""Stage evaluate: the only reader of the test photos."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from lesions import hardware, scoring
from lesions.artifacts import replacing, write_csv, write_json
from lesions.batches import Batches
from lesions.diagnoses import Labels, labels_of
from lesions.errors import LesionsError, run
from lesions.inference import predict
from lesions.metadata import read_table
from lesions.networks import Classifier, load
from lesions.params import load_params
from lesions.photos import PhotoArray


def main(models: Annotated[list[str], typer.Argument(help="The models, as trained.")]) -> None:
    """Score MODELS on the test photos, and on those of data/external: metrics/ and plots/."""
    params = load_params()
    hardware.compute_deterministically(params.deterministic)
    place = hardware.pick_device(params.device)
    bf16 = hardware.use_bf16(params.precision, place)
    with replacing(Path("data/submissions"), folder=True) as submissions:
        for model in models:
            classifier = load(Path(f"models/{model}.safetensors"), place, bf16)
            if classifier.card.architecture != model:
                raise LesionsError(
                    f"models/{model}.safetensors: holds {classifier.card.architecture}. Run "
                    f"`dvc repro --force train-{model}`."
                )
            table, labels, answers = _answer(classifier, "data/resized", "data/split/test.csv")
            write_json(Path(f"metrics/{model}.json"), scoring.headline(answers, labels))
            plots = Path("plots") / model
            write_csv(plots / "predictions.csv", scoring.predictions(table, answers, labels))
            write_csv(plots / "per_class.csv", scoring.per_class(answers, labels).round(4))
            figures = {}
            if params.external_test != "none":
                table, labels, answers = _answer(
                    classifier, "data/external", "data/external/test.csv"
                )
                figures = scoring.headline(answers, labels)
                write_csv(submissions / f"{model}.csv", scoring.submission(table, answers))
            write_json(Path(f"metrics/external/{model}.json"), figures)


def _answer(
    classifier: Classifier, array: str, rows: str
) -> tuple[pd.DataFrame, Labels, scoring.Probabilities]:
    """Give a set's table, its labels and the calibrated answers, and print how good they are."""
    photos, table = PhotoArray(Path(array)), read_table(Path(rows), "image_id", "lesion_id", "dx")
    card = classifier.card
    if card.image_size != photos.size:
        raise LesionsError(
            f"{array}: photos of {photos.size} px for {card.architecture} trained on "
            f"{card.image_size} px. Run `dvc repro`."
        )
    batches, labels = Batches(photos.images, classifier.place), labels_of(table)
    logits = predict(classifier, batches, photos.rows(table["image_id"]))
    answers = classifier.probabilities(logits)
    each = scoring.report(scoring.per_class(answers, labels))
    print(f"\n{card.architecture} on the {len(table)} photos of {rows}\n{each}")
    return table, labels, answers


if __name__ == "__main__":
    run(main)
