"""The evaluation of all models on one test set: every table that is written or shown."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lesions.dataset.splits import Leak, find_leak
from lesions.evaluation.comparison import compare, verdicts
from lesions.evaluation.metrics import TABLES, all_tables, bootstrap
from lesions.evaluation.predictions import Predictions, majority_baseline, predict_test_set
from lesions.networks import key_metrics
from lesions.networks.decision import Decision
from lesions.networks.model_file import TrainedModel

DECIMALS = 5


@dataclass(frozen=True)
class Evaluation:
    """What is known about some models after predicting one test set."""

    titles: dict[str, str]  # model to its title
    predictions: dict[str, Predictions]
    tables: dict[str, dict[str, pd.DataFrame]]  # model to its tables, by their names in TABLES
    comparison: pd.DataFrame  # from `compare`, with titles
    starts: dict[str, str]  # title to the weights that training started from
    leak: Leak  # of its lesions into training

    @property
    def photos(self) -> int:
        """How many photos the test set has."""
        return len(next(iter(self.predictions.values())).labels)

    def key_metrics(self) -> dict[str, dict[str, float]]:
        """Compute the key metrics of each model, and of `baseline`: the most common diagnosis."""
        baseline = majority_baseline(next(iter(self.predictions.values())))
        everyone = {**self.predictions, "baseline": baseline}
        return {
            name: {
                **key_metrics.rounded_key_metrics(one.probabilities, one.predicted, one.labels),
                **self.leak.metric,
            }
            for name, one in everyone.items()
        }

    def joined_tables(self) -> dict[str, pd.DataFrame]:
        """Join the tables of all models, with their titles in the column `model`; rounded.

        An external test set without sex, age and site has no table of subgroups.
        """
        joined = {}
        for name in TABLES:
            parts = [
                self.tables[model][name].assign(model=title) for model, title in self.titles.items()
            ]
            if name != "subgroups" or any(len(part) for part in parts):
                joined[name] = pd.concat(parts).round(DECIMALS)
        rounded = self.comparison.round(DECIMALS).assign(p=self.comparison["p"])
        return {**joined, "comparison": rounded}

    def verdicts(self) -> list[str]:
        """Say what the comparison shows, one sentence per pair of models."""
        return verdicts(self.comparison, self.photos, self.starts)


def evaluate(
    models: dict[str, TrainedModel],
    array: Path,
    table: Path,
    train: pd.DataFrame | None,
    decision: Decision,
    views: int,
) -> Evaluation:
    """Predict a test set with every model and compute all tables.

    Args:
        models: by name.
        array: the folder with the pixels of the photos.
        table: a CSV file with image_id, lesion_id and dx.
        train: the training photos; None if none of their lesions can be in the test set.
        decision, views: as in params.yaml.
    """
    cards = {name: model.classifier.card for name, model in models.items()}
    predictions = {
        name: predict_test_set(model, array, table, decision, views)
        for name, model in models.items()
    }
    tested = next(iter(predictions.values())).photos
    resamples = {name: bootstrap(one) for name, one in predictions.items()}
    titles = {name: card.network.title for name, card in cards.items()}
    return Evaluation(
        titles=titles,
        predictions=predictions,
        tables={
            name: all_tables(one, resamples[name], cards[name]) for name, one in predictions.items()
        },
        starts={titles[name]: card.weights for name, card in cards.items()},
        leak=find_leak(train if train is not None else tested[:0], tested, "test"),
        comparison=compare(
            {titles[name]: one for name, one in predictions.items()},
            {titles[name]: one for name, one in resamples.items()},
        ),
    )
