"""Stage evaluate: all networks' metrics on the test photos."""

from lesions.common import layout
from lesions.common.artifacts import write_csv, write_json, write_text
from lesions.common.params import load_params
from lesions.dataset.description import load_description
from lesions.dataset.metadata import read_table
from lesions.dataset.photos import PhotoArray
from lesions.evaluation.evaluation import evaluate
from lesions.evaluation.predictions import as_table
from lesions.networks import hardware
from lesions.networks.model_file import load
from lesions.reporting.card_page import write_card
from lesions.reporting.pictures import write_sheets
from lesions.reporting.summary import summarise
from stages import run_stage


def main() -> None:
    """Evaluate all networks in params.yaml on the test photos; write model cards and pictures."""
    params = load_params()
    dataset = load_description(params.dataset)
    device = hardware.set_up(params.device, "fp32", params.deterministic)
    models = {name: load(layout.model_file(name), device, name) for name in params.networks}
    train = read_table(layout.TRAIN_TABLE, "image_id", "lesion_id", "dx")
    evaluation = evaluate(
        models,
        dataset,
        layout.RESIZED,
        layout.TEST_TABLE,
        train,
        params.decision,
        params.views,
        (layout.RESIZED, layout.VAL_TABLE) if params.ensemble else None,
    )
    for name, model in models.items():
        write_csv(layout.predictions(name), as_table(evaluation.predictions[name]))
        card = model.classifier.card
        text = write_card(card, evaluation, name, params.decision, params.views)
        write_text(layout.card_page(name), text)
    for name, values in evaluation.key_metrics().items():
        write_json(layout.metrics(name), values)
    for name, table in evaluation.joined_tables().items():
        write_csv(layout.plots() / f"{name}.csv", table)
    photos = PhotoArray(layout.RESIZED)
    write_sheets(layout.plots(), photos, train, models, evaluation, params.augment, params.seed)
    print(summarise(evaluation, "test set"))


if __name__ == "__main__":
    run_stage(main)
