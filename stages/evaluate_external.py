"""Stages evaluate-external@NAME: all networks' metrics on an external test set."""

from typing import Annotated

import typer

from lesions.common import layout
from lesions.common.artifacts import atomic_write, write_csv, write_json
from lesions.common.params import load_params
from lesions.dataset.description import load_description
from lesions.evaluation.evaluation import evaluate
from lesions.evaluation.predictions import as_isic_submission, as_table
from lesions.networks import hardware
from lesions.networks.model_file import load
from lesions.reporting.summary import summarise
from stages import external_test_name, run_stage


def main(
    name: Annotated[
        str | None,
        typer.Argument(help="Its name in `external_tests` in params.yaml; DVC's stage names it."),
    ] = None,
) -> None:
    """Evaluate all networks in params.yaml on the external test set NAME."""
    params = load_params()
    name = external_test_name(name)
    dataset = load_description(params.dataset)
    device = hardware.set_up(params.device, "fp32", params.deterministic)
    models = {model: load(layout.model_file(model), device, model) for model in params.networks}
    folder = layout.external_folder(name)
    test = folder / "test.csv"
    validation = (layout.RESIZED, layout.VAL_TABLE) if params.ensemble else None
    evaluation = evaluate(
        models, dataset, folder, test, None, params.decision, params.views, validation
    )
    with atomic_write(layout.external_predictions(name), folder=True) as out:
        for model, predictions in evaluation.predictions.items():
            write_csv(out / f"{model}.csv", as_table(predictions))
            write_csv(out / f"{model}_isic.csv", as_isic_submission(predictions))
    for model, values in evaluation.key_metrics().items():
        write_json(layout.metrics(model, name), values)
    for table_name, table in evaluation.joined_tables().items():
        write_csv(layout.plots(name) / f"{table_name}.csv", table)
    print(summarise(evaluation, name))


if __name__ == "__main__":
    run_stage(main)
