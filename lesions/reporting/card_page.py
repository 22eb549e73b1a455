"""The page of a model card: what a model is for, how it was made and how good it is."""

from lesions.evaluation.evaluation import Evaluation
from lesions.networks.model_card import ModelCard
from lesions.reporting.render import environment
from lesions.scoring.intervals import MIN_CASES
from lesions.scoring.rules import Decision


def write_card(card: ModelCard, evaluation: Evaluation, model: str, decision: Decision) -> str:
    """Fill templates/card.md.

    Args:
        card: from the model file.
        evaluation: on the test photos.
        model: its name.
        decision: the rule that the predictions follow.
    """
    predictions, tables = evaluation.predictions[model], evaluation.tables[model]
    assert predictions.distances is not None
    confidence = predictions.probabilities.max(axis=1)
    names = ("metrics", "decisions", "operating_points", "per_class", "subgroups")
    return (
        environment()
        .get_template("card.md")
        .render(
            card=card,
            title=card.network.title,
            dataset=evaluation.dataset,
            photos=len(predictions.labels),
            lesions=predictions.groups.nunique(),
            decision=decision,
            leak=evaluation.leak,
            min_cases=MIN_CASES,
            **{name: [row for _, row in tables[name].iterrows()] for name in names},
            low_confidence=(confidence < card.use.confidence_threshold).mean(),
            out_of_distribution=(predictions.distances > card.use.distance_threshold).mean(),
        )
    )
