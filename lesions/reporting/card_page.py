"""The page of a model card: what a model is for, how it was made and how good it is."""

from lesions.common.params import Decision, Views
from lesions.evaluation.evaluation import Evaluation
from lesions.networks.model_card import ModelCard
from lesions.reporting.render import environment
from lesions.scoring.guards import MIN_CASES


def write_card(
    card: ModelCard, evaluation: Evaluation, model: str, decision: Decision, views: Views
) -> str:
    """Fill templates/card.md.

    Args:
        card: from the model file.
        evaluation: on the test photos.
        model: its name.
        decision, views: the rule that the predictions follow, and how they were made.
    """
    predictions, tables = evaluation.predictions[model], evaluation.tables[model]
    assert predictions.distances is not None
    confidence = predictions.probabilities.max(axis=1)
    fitted = card.use(views)
    names = (
        *("metrics", "verified", "decisions", "operating_points", "verified_operating_points"),
        *("group_calibration", "per_class", "subgroups"),
    )
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
            fitted=fitted,
            leak=evaluation.leak,
            min_cases=MIN_CASES,
            **{name: [row for _, row in tables[name].iterrows()] for name in names},
            low_confidence=(confidence < fitted.confidence_threshold).mean(),
            out_of_distribution=(predictions.distances > fitted.distance_threshold).mean(),
        )
    )
