"""The page of a model card: what a model is for, how it was made and how good it is."""

from typing import Any

import numpy as np

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
    metadata = _front_matter(card, evaluation, model)
    names = (
        *("metrics", "verified", "decisions", "operating_points", "verified_operating_points"),
        *("group_calibration", "per_class", "subgroups"),
    )
    return (
        environment()
        .get_template("card.md")
        .render(
            metadata=metadata,
            model=model,
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


def _front_matter(card: ModelCard, evaluation: Evaluation, model: str) -> dict[str, Any]:
    """Describe the model as Hugging Face's hub reads it.

    See https://huggingface.co/docs/hub/model-cards#model-card-metadata.
    """
    title = "synthetic sample" if card.recipe.synthetic else card.dataset.title
    metrics = evaluation.tables[model]["metrics"]
    values = [
        {"type": row["metric"], "name": row["title"], "value": round(float(row["value"]), 4)}
        for row in metrics.to_dict("records")
        if np.isfinite(row["value"])  # not all are defined on these photos
    ]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": title, "type": "other", "split": "test"},
        "metrics": values,
    }
    return {
        "license": "mit" if card.recipe.synthetic else "other",
        "library_name": "lesions",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "medical", "torchvision", "dvc"],
        "model-index": [{"name": card.network.title, "results": [result]}],
    }
