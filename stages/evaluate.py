"""Stages evaluate and evaluate-external@NAME: all networks' metrics on one test set."""

from pathlib import Path
from typing import Annotated

import typer

from lesions.common.artifacts import atomic_write, write_csv, write_json, write_text
from lesions.common.params import load_params
from lesions.dataset.metadata import read_table
from lesions.dataset.photos import PhotoArray
from lesions.evaluation.predictions import as_isic_submission, as_table
from lesions.evaluation.test_set import evaluate
from lesions.networks import hardware
from lesions.networks.model_file import load
from lesions.reporting.model_cards import write_card
from lesions.reporting.pictures import write_sheets
from lesions.reporting.summary import summarise
from stages import run_stage


def main(
    external: Annotated[
        str | None, typer.Option(help="An external test set, by its name in params.yaml.")
    ] = None,
) -> None:
    """Evaluate all networks in params.yaml on the test photos, or on an external test set."""
    params = load_params()
    used = hardware.set_up(params.device, params.precision, params.deterministic)
    models = {
        name: load(Path(f"models/{name}.safetensors"), used, name) for name in params.networks
    }
    if external is None:
        metrics, plots = Path("metrics/test"), Path("plots")
        train = read_table(Path("data/split/train.csv"), "image_id", "lesion_id", "dx")
        evaluation = evaluate(
            models,
            Path("data/resized"),
            Path("data/split/test.csv"),
            train,
            params.decision,
            params.views,
        )
        for name, predictions in evaluation.predictions.items():
            write_csv(Path(f"plots/{name}/predictions.csv"), as_table(predictions))
            card = models[name].classifier.card
            tables = evaluation.tables[name]
            text = write_card(card, tables, predictions, params.decision, evaluation.leak)
            write_text(Path(f"models/{name}.md"), text)
        photos = PhotoArray(Path("data/resized"))
        write_sheets(plots, photos, train, models, evaluation, params.augment, params.seed)
    else:
        metrics, plots = Path(f"metrics/{external}"), Path(f"plots/{external}")
        folder = Path(f"data/external/{external}")
        test = folder / "test.csv"
        evaluation = evaluate(models, folder, test, None, params.decision, params.views)
        with atomic_write(Path(f"data/predictions/{external}"), folder=True) as out:
            for name, predictions in evaluation.predictions.items():
                write_csv(out / f"{name}.csv", as_table(predictions))
                write_csv(out / f"{name}_isic.csv", as_isic_submission(predictions))
    for name, values in evaluation.key_metrics().items():
        write_json(metrics / f"{name}.json", values)
    for name, table in evaluation.joined_tables().items():
        write_csv(plots / f"{name}.csv", table)
    print(summarise(evaluation, external or "test set"))


if __name__ == "__main__":
    run_stage(main)
