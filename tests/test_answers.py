from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import answers_of, random_answers
from test_networks import SUBSPACE, card

from lesions import networks
from lesions.answers import answer, predictions, submission
from lesions.artifacts import write_csv
from lesions.diagnoses import CODES, ISIC_COLUMNS
from lesions.errors import LesionsError


def test_broken_probabilities_and_empty_sets_are_refused() -> None:
    good = random_answers()
    broken = good.probabilities.copy()
    broken[5, 2] = np.nan
    with pytest.raises(LesionsError, match="probabilities of P5"):
        answers_of(broken, good.labels)
    with pytest.raises(LesionsError, match="no photos"):
        answers_of(good.probabilities[:0], good.labels[:0])


def test_predictions_table() -> None:
    answers = random_answers(10)
    table = predictions(answers)
    assert list(table.columns) == ["image_id", "lesion_id", "actual", "predicted", *CODES]
    assert list(table["actual"]) == [CODES[label] for label in answers.labels]
    assert list(table["predicted"]) == list(table[list(CODES)].idxmax(axis=1))
    np.testing.assert_allclose(table[list(CODES)].sum(axis=1), 1, atol=1e-5)


def test_submission_in_the_order_of_isic() -> None:
    answers = random_answers(10)
    table = submission(answers)
    assert list(table.columns) == ["image", *ISIC_COLUMNS]
    np.testing.assert_allclose(table["BKL"], answers.probabilities[:, 2], atol=1e-6)


def test_answers_are_calibrated_and_of_the_right_photos(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8))
    table = answers_of(np.eye(7)[:6], np.arange(6)).photos
    write_csv(tmp_path / "image_ids.csv", table[["image_id"]])
    write_csv(tmp_path / "test.csv", table.iloc[[4, 1]])
    cpu = torch.device("cpu")
    classifier = networks.Classifier(
        networks.build("mobilenetv2", "random", 0), card(temperature=4.0), cpu, False, SUBSPACE
    )
    found = answer(classifier, tmp_path, tmp_path / "test.csv")
    assert list(found.photos["image_id"]) == ["P4", "P1"]
    assert found.labels.tolist() == [4, 1]
    assert found.distances is not None
    assert found.distances.shape == (2,)
    assert (found.probabilities.max(axis=1) < found.uncalibrated.max(axis=1)).all()
    other = networks.Classifier(classifier.network, card(image_size=64), cpu, False)
    with pytest.raises(LesionsError, match="photos of 32 px for mobilenetv2 trained on 64 px"):
        answer(other, tmp_path, tmp_path / "test.csv")
