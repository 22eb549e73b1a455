"""The demo's answers in words."""

from pathlib import Path

import numpy as np
import pytest
from helpers import CODES, DATASET, card_of

from lesions.scoring.operating_points import OperatingPoint
from lesions.serving import answers
from lesions.serving.answers import answer
from lesions.serving.predictor import Prediction


def prediction(melanoma: float, predicted: str = "nv") -> Prediction:
    shares = dict.fromkeys(CODES, 0.0) | {"mel": melanoma, "nv": 1 - melanoma}
    scores = {"melanoma": melanoma, "malignant": melanoma}
    chances = np.array([shares[code] for code in CODES])
    return Prediction(chances, CODES.index(predicted), scores, False, False)


POINTS = tuple(
    OperatingPoint(
        group=group, sensitivity=aim, threshold=threshold, assured=assured, low=0.7, high=1
    )
    for group, aim, threshold, assured in (
        ("melanoma", 0.8, 0.5, False),
        ("melanoma", 0.9, 0.06, False),
        ("melanoma", 0.9, 0.001, True),
        ("malignant", 0.9, 0.4, False),
    )
)


def test_a_referral_is_the_first_word_though_another_class_is_more_probable() -> None:
    fitted = card_of(operating_points=POINTS).use(1)
    assert answer(prediction(0.28), fitted, DATASET) == (
        "Refer: melanoma 28 %, above the limit of 6 %, which finds 90 % in validation. "
        "Most probable: melanocytic nevus, 72 %."
    )
    assert answer(prediction(0.004), fitted, DATASET) == (
        "Below the limit, which finds 90 % in validation: melanoma under 1 % (limit 6 %); "
        "malignant under 1 % (limit 40 %). Most probable: melanocytic nevus, over 99 %."
    )


def test_a_group_without_a_threshold_is_named_beside_one_that_has_one() -> None:
    cases = {"melanoma": 6, "malignant": 30}
    fitted = card_of(operating_points=POINTS[3:], cases=cases).use(1)
    found = answer(prediction(0.1), fitted, DATASET)
    assert "malignant 10 % (limit 40 %). No limit for melanoma (6 validation cases). Most" in found


def test_without_thresholds_the_answer_says_why() -> None:
    few = card_of(cases={"melanoma": 3, "malignant": 7}).use(1)
    assert answer(prediction(0.3), few, DATASET).startswith(
        "No limit for referral: of 10 cases needed, validation had 3 of melanoma and 7 of malignant"
    )
    none = card_of(dataset=DATASET.model_copy(update={"groups": {}, "watched": None})).use(1)
    assert answer(prediction(0.3), none, DATASET) == "Most probable: melanocytic nevus, 70 %."


def test_the_balanced_decision_is_named_where_it_differs() -> None:
    found = answer(prediction(0.3, predicted="mel"), card_of().use(1), DATASET)
    assert found.endswith("Predicted by the decision `balanced`: melanoma, 30 %.")


def test_examples_are_the_first_test_photo_of_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c", "trained"):
        file = tmp_path / f"data/raw/images/{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    found = answers._examples({"a": "nv", "b": "nv", "c": "mel", "gone": "df"})
    assert {code: path.name for code, path in found.items()} == {"mel": "c.jpg", "nv": "a.jpg"}
