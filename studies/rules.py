"""Rules: what trained networks can give without another training, one change at a time.

    python -m studies.rules mobilenetv2 RUN RUN RUN

Each RUN is a folder of this project in which the network was trained: one per seed, on one split.
The changes are four views, a last layer that is fitted again (`head: refitted`), and the mean of
all seeds' probabilities. Each is calibrated on validation, as the pipeline does it. The tables have
validation photos, which choose, and test photos, which nothing was chosen on.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import typer

from lesions.common import layout
from lesions.common.errors import LesionsError, run_cli
from lesions.common.params import Decision, Views, load_params
from lesions.common.types import Floats, Labels, Rows
from lesions.dataset.description import Description, load_description
from lesions.dataset.metadata import groups_of, read_table
from lesions.dataset.photos import PhotoArray
from lesions.networks import hardware
from lesions.networks.batches import PhotoLoader
from lesions.networks.inference import run_inference
from lesions.networks.model_file import load
from lesions.reporting.render import interval, number
from lesions.scoring.fitted import fit
from lesions.scoring.intervals import bootstrap_weights, percentile_interval
from lesions.scoring.metrics import confusion_matrices, mean_of_known, sensitivities
from lesions.scoring.rules import DECISIONS, decide
from lesions.training.last_layer import compute_features, fit_last_layer

SUBSETS = {"validation": layout.VAL_TABLE, "test": layout.TEST_TABLE}
AS_TRAINED, MEAN = "as trained", "mean of the seeds"


class Rule(NamedTuple):
    """What one network gives under one rule, for the photos of each subset."""

    probabilities: Mapping[str, Floats]
    prevalence: Floats  # (classes,) in validation


def main(
    model: Annotated[str, typer.Argument(help="A network in params.yaml.")],
    runs: Annotated[list[Path], typer.Argument(help="Folders of the project, one per seed.")],
) -> None:
    """Compare rules on validation and on test."""
    photos = [{name: read(run / path) for name, path in SUBSETS.items()} for run in runs]
    for name in SUBSETS:
        if len({tuple(one[name]["image_id"]) for one in photos}) > 1:
            raise LesionsError(f"the runs do not have the same {name} photos: use one split_seed.")
    found = []
    for run in runs:
        with contextlib.chdir(run):
            dataset = load_description(load_params().dataset)
            found.append(try_rules(model, dataset))
    averaged = average([rules[AS_TRAINED] for rules in found], photos[0]["validation"], dataset)
    for name in SUBSETS:
        for decision in DECISIONS:
            print(f"\n{name}, {decision}: balanced accuracy; difference to {AS_TRAINED}")
            print(as_text(found, averaged, photos[0][name], name, decision, dataset))


def read(path: Path) -> pd.DataFrame:
    """Read a table of the split."""
    return read_table(path, "image_id", "lesion_id", "dx")


def try_rules(model: str, dataset: Description) -> dict[str, Rule]:
    """Predict validation and test photos of the run in this folder under each rule."""
    params = load_params()
    used = hardware.set_up(params.device, "fp32", params.deterministic)
    classifier = load(layout.model_file(model), used, model).classifier
    photos = PhotoArray(layout.RESIZED)
    loader = PhotoLoader(photos.images, used.device)
    tables = {name: read(path) for name, path in SUBSETS.items()}
    rows = {name: photos.rows(table["image_id"]) for name, table in tables.items()}
    trained = np.array([classifier.card.observations.get(name, 0) for name in dataset.classes])

    def infer(views: Views) -> Rule:
        logits = {n: run_inference(classifier, loader, r, views).logits for n, r in rows.items()}
        return calibrate(logits, tables["validation"], dataset, trained, views)

    train = read(layout.TRAIN_TABLE)
    classes = len(dataset.classes)

    def features_of(of_subset: Rows) -> Floats:
        return compute_features(classifier, loader, of_subset)

    weights, biases = fit_last_layer(
        features_of(photos.rows(train["image_id"])),
        dataset.labels_of(train["dx"]),
        groups_of(train),
        classes,
    )
    refitted = {name: features_of(one) @ weights.T + biases for name, one in rows.items()}
    return {
        AS_TRAINED: infer(1),
        "four views": infer(4),
        "refitted last layer": calibrate(
            refitted, tables["validation"], dataset, np.ones(classes), 1
        ),
    }


def average(rules: list[Rule], validation: pd.DataFrame, dataset: Description) -> Rule:
    """Average the probabilities of several networks, and calibrate the mean, as `ensemble` does."""
    tiny = np.finfo(np.float64).tiny
    logits = {
        name: np.log(np.maximum(np.mean([one.probabilities[name] for one in rules], axis=0), tiny))
        for name in SUBSETS
    }
    labels = dataset.labels_of(validation["dx"])
    counts = np.bincount(labels, minlength=len(dataset.classes)).astype(np.float64)
    return calibrate(logits, validation, dataset, counts, 1)


def calibrate(
    logits: Mapping[str, Floats],
    validation: pd.DataFrame,
    dataset: Description,
    trained: Floats,
    views: Views,
) -> Rule:
    """Fit calibration and prevalence on validation, and apply them to all subsets.

    Args:
        logits: of each subset, (n, classes).
        validation: the table of its photos.
        dataset: names the classes.
        trained: (classes,) how often training used each class.
        views: of the logits.
    """
    none = np.zeros(len(validation))  # distances: the rules do not use them
    labels, units = dataset.labels_of(validation["dx"]), groups_of(validation)
    fitted = fit(logits["validation"], none, labels, units, dataset, trained, views)
    probabilities = {n: fitted.calibration.probabilities(one) for n, one in logits.items()}
    return Rule(probabilities, np.array(fitted.prevalence))


def as_text(
    found: list[dict[str, Rule]],
    averaged: Rule,
    photos: pd.DataFrame,
    name: str,
    decision: Decision,
    dataset: Description,
) -> str:
    """Lay out the balanced accuracies of one subset and decision as Markdown."""
    labels = dataset.labels_of(photos["dx"])
    weights = np.concatenate(list(bootstrap_weights(groups_of(photos).to_numpy(dtype=str))))
    once = np.ones((1, len(labels)))

    def scores(predicted: Labels, counted: Floats) -> Floats:
        confusion = confusion_matrices(predicted, labels, counted, len(dataset.classes))
        return mean_of_known(sensitivities(confusion))

    lines = [
        f"| rule | {' | '.join(f'run {run}' for run in range(len(found)))} |",
        f"|---|{'---|' * len(found)}",
    ]
    for key in (*found[0], MEAN):
        cells = []
        for rules in found:
            one = averaged if key == MEAN else rules[key]
            start = rules[AS_TRAINED]
            own, other = (
                decide(each.probabilities[name], decision, each.prevalence) for each in (one, start)
            )
            cell = number(float(scores(own, once)[0]))
            if key != AS_TRAINED:
                difference = scores(own, once)[0] - scores(other, once)[0]
                low, high = percentile_interval(scores(own, weights) - scores(other, weights))
                cell += f"; {number(difference)} ({interval({'low': low, 'high': high})})"
            cells.append(cell)
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(main)
