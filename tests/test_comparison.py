from typing import Any

import numpy as np
import pytest
from conftest import answers_of, random_answers

from lesions.answers import Answers
from lesions.comparison import conclude, differences, mcnemar
from lesions.errors import LesionsError
from lesions.scoring import once, resampled


def compare(one: Answers, other: Answers) -> tuple[Any, str]:
    answers = {"resnet50": one, "mobilenetv2": other}
    samples = {name: resampled(own) for name, own in answers.items()}
    table = differences(answers, samples)
    (sentence,) = conclude(table, len(one.labels))
    return table.set_index("figure"), sentence


def test_mcnemar_by_hand() -> None:
    labels = np.full(12, 5)
    one = answers_of(np.eye(7)[[5] * 11 + [4]], labels)
    other = answers_of(np.eye(7)[[5] * 2 + [4] * 9 + [5]], labels)
    found = mcnemar(one, other)
    assert (found["only_first"], found["only_second"]) == (9, 1)
    assert found["p"] == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(one, one)["p"] == 1


def test_a_model_beside_itself_differs_in_nothing() -> None:
    one = random_answers()
    table, sentence = compare(one, one)
    assert (table["difference"] == 0).all()
    assert (table[["low", "high"]].isna()).all(axis=None)
    assert "ResNet50 and MobileNetV2 differ on too few lesions to compare weighted F1" in sentence
    assert "higher" not in sentence


@pytest.mark.parametrize(("photos", "lost"), [(1, 1), (9, 4), (1000, 5), (1000, 9)])
def test_a_handful_of_disagreements_shows_nothing(photos: int, lost: int) -> None:
    labels = np.full(photos, 5)
    said = np.where(np.arange(photos) < lost, 4, 5)
    table, sentence = compare(
        answers_of(np.eye(7)[labels], labels), answers_of(np.eye(7)[said], labels)
    )
    assert table["low"].isna().all()
    assert "higher" not in sentence


def test_photos_of_one_lesion_have_one_vote() -> None:
    labels = np.full(36, 5)
    lesions = [f"L{row // 4}" for row in range(36)]
    one = answers_of(np.eye(7)[labels], labels, lesions)
    other = answers_of(np.eye(7)[np.where(np.arange(36) < 16, 4, 5)], labels, lesions)
    assert mcnemar(one, other) == {"only_first": 4, "only_second": 0, "p": 0.125}


def test_a_clearly_better_model_is_named() -> None:
    labels = random_answers().labels
    good = answers_of(np.eye(7)[labels] * 0.9 + 0.1 / 7, labels)
    poor = random_answers()
    table, sentence = compare(poor, good)
    assert table["difference"]["accuracy"] == pytest.approx(once(poor)["accuracy"] - 1)
    assert (table["high"] < 0).all()
    assert sentence.startswith("On these 300 test photos, MobileNetV2 has the higher weighted F1")


@pytest.mark.parametrize(("ahead", "behind", "told"), [(58, 38, False), (66, 34, True)])
def test_four_figures_are_compared(ahead: int, behind: int, told: bool) -> None:
    labels = np.full(1001, 5)
    rows = np.arange(1001)
    one = answers_of(np.eye(7)[np.where(rows < behind, 2, 5)], labels)
    other = answers_of(np.eye(7)[np.where(rows >= 1001 - ahead, 2, 5)], labels)
    table, sentence = compare(one, other)
    assert table["low"]["accuracy"] > 0  # taken alone, 95 % would do
    assert table["told"]["accuracy"] == told
    assert ("ResNet50 has the higher" in sentence) == told


def test_pairing_narrows_the_interval() -> None:
    one = random_answers()
    said = one.said.copy()
    said[:20] = (said[:20] + 1) % 7
    other = answers_of(np.eye(7)[said], one.labels)
    table, _ = compare(one, other)
    apart = np.std(resampled(one)["accuracy"]) * 2 * 1.96 * np.sqrt(2)
    width = (table["high"] - table["low"])["accuracy"]
    assert width < apart / 2


def test_a_third_model_joins() -> None:
    answers = {"resnet50": random_answers(), "mobilenetv2": random_answers(seed=1)}
    answers["a third"] = random_answers(seed=2)
    samples = {name: resampled(own) for name, own in answers.items()}
    pairs = differences(answers, samples)[["first", "second"]].drop_duplicates()
    assert len(pairs) == 3


def test_other_photos_are_no_comparison() -> None:
    one, other = random_answers(), random_answers(200)
    with pytest.raises(LesionsError, match="different photos"):
        differences({"a": one, "b": other}, {"a": {}, "b": {}})
