"""All tables, the summary and the card, for datasets of other shapes than the published one."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import card_of

from lesions.dataset.description import Description
from lesions.dataset.splits import Leak
from lesions.evaluation.comparison import compare
from lesions.evaluation.evaluation import Evaluation
from lesions.evaluation.predictions import Predictions
from lesions.evaluation.tables import TABLES, Evaluated, bootstrap
from lesions.reporting.card_page import write_card
from lesions.reporting.summary import summarise
from lesions.scoring.operating_points import fit_operating_points


def described(classes: int, **changes: Any) -> Description:
    codes = [f"c{k}" for k in range(classes)]
    plain: dict[str, Any] = {"title": "t", "classes": codes, "groups": {}, "watched": None}
    return Description(**{**plain, **changes})


def evaluation_of(dataset: Description, labels: np.ndarray, models: int = 2) -> Evaluation:
    count, n = len(dataset.classes), len(labels)
    ids = [f"P{k}" for k in range(n)]
    codes = [dataset.classes[label] for label in labels]
    photos = pd.DataFrame({"image_id": ids, "lesion_id": ids, "dx": codes})
    groups = {name: dataset.indices(name) for name in dataset.groups}
    predictions, evaluated = {}, {}
    for number in range(models):
        rng = np.random.default_rng(number)
        probabilities = rng.dirichlet(np.ones(count), n)
        distances = rng.random(n)
        one = Predictions(
            dataset,
            photos,
            labels,
            probabilities,
            probabilities,
            probabilities.argmax(axis=1),
            distances,
        )
        points = fit_operating_points(probabilities, labels, photos["lesion_id"], groups)
        per_class: dict[str, Any] = {
            "bias": (0.0,) * count,
            "prevalence": (round(1 / count, 6),) * count,
        }
        card = card_of(dataset=dataset, operating_points=points, **per_class)
        predictions[f"m{number}"] = one
        evaluated[f"m{number}"] = Evaluated(one, card.use(1), bootstrap(one))
    return Evaluation(
        titles={name: name.upper() for name in predictions},
        predictions=predictions,
        tables={
            name: {key: make(one) for key, make in TABLES.items()}
            for name, one in evaluated.items()
        },
        comparison=compare(evaluated),
        starts=dict.fromkeys(predictions, "random"),
        leak=Leak(0, len(labels), "test", "lesion"),
    )


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize(
    ("dataset", "present"),
    [
        (described(2), [0, 1]),
        (described(2, groups={"bad": ["c1"]}, watched="bad"), [0, 1]),
        (described(40, groups={"bad": ["c1", "c2"]}, watched="bad"), list(range(40))),
        (described(3, groups={"bad": ["c2"]}, watched="bad"), [0, 1]),  # c2 is absent
        (described(3, groups={"bad": ["c0", "c1"]}, watched="bad"), [0, 1]),  # nothing else
        (described(3), [1]),
    ],
)
def test_every_shape_has_all_tables_and_pages(
    dataset: Description, present: list[int], models: int
) -> None:
    labels = np.resize(np.array(present), 60)
    evaluation = evaluation_of(dataset, labels, models)
    tables = evaluation.joined_tables()
    assert set(tables) == {*TABLES, "comparison"}
    assert len(tables["confusion"]) == models * len(dataset.classes) ** 2
    cases = np.isin(labels, [dataset.classes.index(code) for code in dataset.groups.get("bad", ())])
    # Sensitivity and specificity of a threshold, if validation and test have ten cases and others.
    thresholds = (cases.sum() >= 10) * (1 + ((~cases).sum() >= 10))
    expected = (4 if dataset.watched else 3) + thresholds
    assert len(tables["comparison"]) == (models - 1) * expected
    keys = [set(values) for values in evaluation.key_metrics().values()]
    assert all(one == keys[0] for one in keys)
    text = summarise(evaluation, "test set")
    card = write_card(
        card_of(
            dataset=dataset,
            bias=(0.0,) * len(dataset.classes),
            prevalence=(0.5,) * len(dataset.classes),
        ),
        evaluation,
        "m0",
        "most-probable",
        1,
    )
    absent = len(set(present)) < len(dataset.classes)
    undefined = "bad_sensitivity" not in keys[0] and dataset.watched is not None
    assert ("bad sensitivity" in text) == (dataset.watched is not None)
    assert ("–" in text) == (undefined or "roc_auc" not in keys[0])
    assert ("| – |" in card) or not absent
    assert "nan" not in text + card
