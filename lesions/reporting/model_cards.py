"""Model cards: what a model is for, how it was made and how good it is, as Markdown."""

import pandas as pd

from lesions.dataset.diagnoses import DIAGNOSES
from lesions.dataset.splits import Leak
from lesions.evaluation.predictions import Predictions
from lesions.networks.decision import Decision
from lesions.networks.model_card import ModelCard
from lesions.reporting.templates import environment


def write_card(
    card: ModelCard,
    tables: dict[str, pd.DataFrame],
    predictions: Predictions,
    decision: Decision,
    leak: Leak,
) -> str:
    """Fill templates/card.md.

    Args:
        card: from the model file.
        tables: from `metrics.all_tables`.
        predictions: for the test photos, with their distances.
        decision: the rule that they follow.
        leak: of the test photos' lesions into training.
    """
    assert predictions.distances is not None
    confidence = predictions.probabilities.max(axis=1)
    return (
        environment()
        .get_template("card.md")
        .render(
            card=card,
            title=card.network.title,
            diagnoses=DIAGNOSES,
            synthetic=card.recipe["source"] == "sample",
            photos=len(predictions.labels),
            lesions=predictions.photos["lesion_id"].nunique(),
            decision=decision,
            leak=leak,
            decisions=[row for _, row in tables["decisions"].iterrows()],
            referrals=[row for _, row in tables["operating_points"].iterrows()],
            metrics=[row for _, row in tables["metrics"].iterrows()],
            per_class=[row for _, row in tables["per_class"].iterrows()],
            subgroups=[row for _, row in tables["subgroups"].iterrows()],
            low_confidence=(confidence < card.confidence_threshold).mean(),
            out_of_distribution=(predictions.distances > card.distance_threshold).mean(),
        )
    )
