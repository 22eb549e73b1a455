from dataclasses import replace

import numpy as np
import yaml
from helpers import DATASET, PARAMS, card_of, random_predictions

from lesions.dataset.description import Description
from lesions.dataset.splits import Leak
from lesions.evaluation.comparison import compare
from lesions.evaluation.evaluation import Evaluation
from lesions.evaluation.tables import TABLES, Evaluated, bootstrap, per_class_table, point_estimates
from lesions.reporting.card_page import write_card
from lesions.reporting.render import number
from lesions.scoring.operating_points import OperatingPoint

POINT = OperatingPoint(
    group="melanoma", sensitivity=0.9, threshold=0.2, assured=False, low=0.77, high=0.96
)


def written(
    source: str, leaking: int = 0, shortcut: float = 0, dataset: Description = DATASET
) -> str:
    distances = np.repeat([0.6, 0.4], [75, 225])
    predictions = replace(random_predictions(), distances=distances, dataset=dataset)
    recipe = PARAMS.recipe().model_copy(update={"source": source, "shortcut": shortcut})
    points = (POINT,) if dataset.groups else ()
    bias = (0.5, 0, 0, 0, 0, 0, 0)
    card = card_of(recipe=recipe, bias=bias, operating_points=points, dataset=dataset)
    one = Evaluated(predictions, card.use(1), bootstrap(predictions))
    evaluation = Evaluation(
        titles={"m": "M"},
        predictions={"m": predictions},
        tables={"m": {name: make(one) for name, make in TABLES.items()}},
        comparison=compare({"m": one}),
        starts={"m": "random"},
        leak=Leak(leaking, 300, "test", "lesion"),
    )
    return write_card(card, evaluation, "m", "most-probable", 1)


def test_the_card_has_results_limits_and_licence() -> None:
    text = written("dataverse")
    accuracy = point_estimates(random_predictions())["accuracy"]
    assert f"| accuracy | {accuracy:.3f} |" in text
    # What Hugging Face's hub reads.
    _, front, body = text.split("---\n", 2)
    found = yaml.safe_load(front)
    assert (found["license"], found["pipeline_tag"]) == ("other", "image-classification")
    (result,) = found["model-index"][0]["results"]
    values = {one["type"]: one["value"] for one in result["metrics"]}
    assert values["accuracy"] == round(accuracy, 4)
    assert "`lesions predict PHOTOS --model m`" in body
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
    one = random_predictions()
    table = per_class_table(Evaluated(one, card_of().use(1), bootstrap(one)))
    mel = table.set_index("dx").loc["mel"]
    assert f"| mel | {mel['photos']:.0f} | {mel['sensitivity']:.3f} |" in text
    for word in ("Not a medical device", "CC BY-NC 4.0", "## Limits", "Vienna", "doi:10.1038"):
        assert word in text
    assert "synthetic" not in text


def test_a_card_of_synthetic_photos_says_so() -> None:
    assert "Trained on synthetic pictures, not on photos" in written("sample")


def test_undefined_is_a_dash_and_minus_is_a_minus() -> None:
    assert number(float("nan")) == "–"
    assert number(-0.12345) == "−0.123"


def test_a_card_of_leaking_results_says_so() -> None:
    text = written("dataverse", leaking=120)
    assert "**LEAKING: 120 of 300 test photos" in text
    assert "No lesion is in both" not in text
    assert "LEAKING" not in written("dataverse")


def test_a_card_of_a_planted_shortcut_says_so() -> None:
    text = written("dataverse", shortcut=0.8)
    assert "a ruler is drawn on 80 % of the training photos of melanoma" in text
    assert "planted shortcut" not in written("dataverse")


def test_a_strangers_dataset_is_not_said_to_be_another() -> None:
    letters = Description(title="Letters", classes=tuple("abcdefg"), groups={}, watched=None)
    text = written("/photos", dataset=letters)
    assert "Letters. Source of the photos: /photos. Origin: not stated" in text
    assert "Of the photos: not stated Cite: not stated" in text
    assert "classifies photos into 7 classes" in text
    assert "| group | aim |" not in text
    for word in ("HAM10000", "Vienna", "CC BY", "melanoma", "malignant", "dermatoscopic"):
        assert word not in text
