"""The evaluation of all models on one test set: every table that is written or shown."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lesions.common.params import Decision, Views
from lesions.dataset.description import Description
from lesions.dataset.splits import Leak, find_leak
from lesions.evaluation import ensemble
from lesions.evaluation.comparison import compare, verdicts
from lesions.evaluation.predictions import Predictions, majority_baseline, predict_test_set
from lesions.evaluation.tables import TABLES, Evaluated, bootstrap
from lesions.networks.model_file import TrainedModel
from lesions.scoring.metrics import rounded_key_metrics

BASELINE = "baseline"  # always the most common class
DECIMALS = 5


@dataclass(frozen=True)
class Evaluation:
    """What is known about some models, by name, after predicting one test set."""

    titles: dict[str, str]
    predictions: dict[str, Predictions]
    tables: dict[str, dict[str, pd.DataFrame]]  # of each model, by their names in TABLES
    comparison: pd.DataFrame  # from `compare`
    starts: dict[str, str]  # the weights that training started from
    leak: Leak  # of its lesions into training

    @property
    def dataset(self) -> Description:
        """The description of the test set."""
        return next(iter(self.predictions.values())).dataset

    @property
    def photos(self) -> int:
        """How many photos the test set has."""
        return len(next(iter(self.predictions.values())).labels)

    def key_metrics(self) -> dict[str, dict[str, float]]:
        """Compute the key metrics of each model, and of BASELINE."""
        baseline = majority_baseline(next(iter(self.predictions.values())))
        return {
            name: {
                **rounded_key_metrics(one.probabilities, one.predicted, one.labels, self.dataset),
                **self.leak.metric,
            }
            for name, one in {**self.predictions, BASELINE: baseline}.items()
        }

    def joined_tables(self) -> dict[str, pd.DataFrame]:
        """Join the tables of all models, with their titles in the column `model`; rounded."""
        joined = {
            name: pd.concat(
                self.tables[model][name].assign(model=title) for model, title in self.titles.items()
            ).round(DECIMALS)
            for name in TABLES
        }
        comparison = self.titled_comparison()
        return {**joined, "comparison": comparison.round(DECIMALS).assign(p=comparison["p"])}

    def titled_comparison(self) -> pd.DataFrame:
        """Replace the models of the comparison by their titles."""
        return self.comparison.replace({"first": self.titles, "second": self.titles})

    def verdicts(self) -> list[str]:
        """Say what the comparison shows, one sentence per pair of models."""
        starts = {self.titles[name]: start for name, start in self.starts.items()}
        return verdicts(self.titled_comparison(), self.photos, starts, self.leak.word)


def evaluate(
    models: dict[str, TrainedModel],
    dataset: Description,
    array: Path,
    table: Path,
    train: pd.DataFrame | None,
    decision: Decision,
    views: Views,
    validation: tuple[Path, Path] | None = None,
) -> Evaluation:
    """Predict a test set with every model and compute all tables.

    Args:
        models: by name.
        dataset: of the test set.
        array: the folder with the pixels of the photos.
        table: a CSV file with image_id, lesion_id and dx.
        train: the training photos; None if none of their lesions can be in the test set.
        decision, views: as in params.yaml.
        validation: array and table of the validation photos, to add the mean of all models as a
            model of its own; None to leave that out.
    """
    cards = {name: model.classifier.card for name, model in models.items()}
    predictions = {
        name: predict_test_set(model, dataset, array, table, decision, views)
        for name, model in models.items()
    }
    fitted = {name: card.use(views) for name, card in cards.items()}
    titles = {name: card.network.title for name, card in cards.items()}
    starts = {name: card.weights for name, card in cards.items()}
    if validation is not None:
        known = {
            name: predict_test_set(model, dataset, *validation, decision, views)
            for name, model in models.items()
        }
        averaged = ensemble.average(known, predictions, decision, views)
        predictions[ensemble.NAME], fitted[ensemble.NAME] = averaged
        titles[ensemble.NAME] = ensemble.TITLE
        starts[ensemble.NAME] = " and ".join(dict.fromkeys(starts.values()))
    tested = next(iter(predictions.values())).photos
    evaluated = {
        name: Evaluated(one, fitted[name], bootstrap(one)) for name, one in predictions.items()
    }
    return Evaluation(
        titles=titles,
        predictions=predictions,
        tables={
            name: {key: make(one) for key, make in TABLES.items()}
            for name, one in evaluated.items()
        },
        starts=starts,
        leak=find_leak(train if train is not None else tested[:0], tested, "test"),
        comparison=compare(evaluated),
    )
