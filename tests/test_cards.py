from dataclasses import replace

import numpy as np
from conftest import random_answers
from test_networks import card

from lesions import cards, scoring


def written(source: str) -> str:
    answers = random_answers()
    answers = replace(answers, distances=np.repeat([0.6, 0.4], [75, 225]))
    recipe = {"source": source, "lr": 0.001, "augment": {"hue": 0.1}}
    tables = scoring.tables(answers, scoring.resampled(answers))
    return cards.write(card(recipe=recipe), tables, scoring.report(answers), answers)


def test_the_card_tells_results_limits_and_licence() -> None:
    text = written("dataverse")
    accuracy = scoring.once(random_answers())["accuracy"]
    assert f"| accuracy | {accuracy:.3f} |" in text
    assert "300 test photos of 300 lesions" in text
    assert "akiec 9" in text
    assert "less probable than 0.300 is marked as doubtful" in text
    doubted = (random_answers().probabilities.max(axis=1) < 0.3).mean()
    assert f"photos {doubted:.3f} are doubtful; 0.250 are strange" in text
    assert "hue: 0.1" in text
    for word in ("No medical device", "CC BY-NC 4.0", "## Subgroups", "## Limits"):
        assert word in text
    assert "Trained on drawn pictures" not in text


def test_a_card_of_drawn_photos_says_so() -> None:
    assert "Trained on drawn pictures, not on photographs" in written("sample")


def test_what_is_undefined_is_a_dash() -> None:
    assert cards.number(float("nan")) == "–"
    assert cards.number(0.12345) == "0.123"
