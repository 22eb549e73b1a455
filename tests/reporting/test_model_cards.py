from dataclasses import replace

import numpy as np
from helpers import PARAMS, card_of, random_predictions

from lesions.dataset.splits import Leak
from lesions.evaluation import metrics
from lesions.networks.operating_points import OperatingPoint
from lesions.reporting.model_cards import write_card
from lesions.reporting.templates import number

POINT = OperatingPoint(
    target="melanoma", sensitivity=0.9, threshold=0.2, lesions=42, low=0.77, high=0.96
)


def written(source: str, leaking: int = 0, shortcut: float = 0) -> str:
    distances = np.repeat([0.6, 0.4], [75, 225])
    predictions = replace(random_predictions(), distances=distances)
    recipe = {"source": source, "lr": 0.001, "augment": PARAMS.augment.model_dump()}
    recipe["shortcut"] = shortcut
    card = card_of(recipe=recipe, bias=(0.5, 0, 0, 0, 0, 0, 0), operating_points=(POINT,))
    tables = metrics.all_tables(predictions, metrics.bootstrap(predictions), card)
    return write_card(card, tables, predictions, "most-probable", Leak(leaking, 300, "test"))


def test_the_card_has_results_limits_and_licence() -> None:
    text = written("dataverse")
    accuracy = metrics.point_estimates(random_predictions())["accuracy"]
    assert f"| accuracy | {accuracy:.3f} |" in text
    assert "300 photos of 300 lesions" in text
    assert "akiec 9" in text
    assert "probability below 0.300 is flagged as low confidence" in text
    low = (random_predictions().probabilities.max(axis=1) < 0.3).mean()
    assert f"{100 * low:.1f} % get\nthe flag low confidence" in text
    assert "25.0 % the flag out of distribution" in text
    assert "hue: 0.1" in text
    assert "(akiec 0.500, bcc 0.000" in text
    assert "| most-probable | accuracy |" in text
    assert "| balanced | melanoma sensitivity |" in text
    assert "| melanoma | 0.90 | 0.200 | 0.770 to 0.960 |" in text
    mel = metrics.per_class_table(random_predictions()).set_index("dx").loc["mel"]
    assert f"| mel | {mel['photos']:.0f} | {mel['sensitivity']:.3f} |" in text
    for word in ("Not a medical device", "CC BY-NC 4.0", "## Subgroups", "## Limits"):
        assert word in text
    assert "synthetic" not in text


def test_a_card_of_synthetic_photos_says_so() -> None:
    assert "Trained on synthetic pictures, not on photos" in written("sample")


def test_undefined_is_a_dash_and_minus_is_a_minus() -> None:
    assert number(float("nan")) == "–"
    assert number(-0.12345) == "−0.123"


def test_a_card_of_leaking_results_says_so() -> None:
    text = written("dataverse", leaking=120)
    assert "**LEAKING (holdout: any-photo): 120 of 300 test photos" in text
    assert "No lesion is in both" not in text
    assert "LEAKING" not in written("dataverse")


def test_a_card_of_a_planted_shortcut_says_so() -> None:
    text = written("dataverse", shortcut=0.8)
    assert "a ruler is drawn on 80% of the training melanomas" in text
    assert "planted shortcut" not in written("dataverse")
