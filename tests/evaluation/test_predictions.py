from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CODES, DATASET, SUBSPACE, classifier_of, predictions_of, random_predictions

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.evaluation.predictions import (
    as_isic_submission,
    as_table,
    majority_baseline,
    predict_test_set,
)
from lesions.networks.augmentation import to_float
from lesions.networks.model_file import TrainedModel

PREVALENCE = (0.01, 0.2, 0.2, 0.1, 0.1, 0.3, 0.09)


def test_broken_probabilities_and_empty_sets_are_refused() -> None:
    good = random_predictions()
    broken = good.probabilities.copy()
    broken[5, 2] = np.nan
    with pytest.raises(LesionsError, match="probabilities of P5"):
        predictions_of(broken, good.labels)
    with pytest.raises(LesionsError, match="no photos"):
        predictions_of(good.probabilities[:0], good.labels[:0])


def test_table_of_predictions() -> None:
    predictions = random_predictions(10)
    table = as_table(predictions)
    assert list(table.columns) == [
        "image_id",
        "lesion_id",
        "actual",
        "predicted",
        "confidence",
        *CODES,
    ]
    assert list(table["actual"]) == [CODES[label] for label in predictions.labels]
    assert list(table["predicted"]) == list(table[list(CODES)].idxmax(axis=1))
    np.testing.assert_allclose(table[list(CODES)].sum(axis=1), 1, atol=1e-5)
    assert (table["confidence"] == table[list(CODES)].max(axis=1)).all()


def test_submission_in_the_form_of_isic() -> None:
    predictions = random_predictions(10)
    table = as_isic_submission(predictions)
    assert list(table.columns) == ["image", *(code.upper() for code in CODES)]
    np.testing.assert_allclose(table["BKL"], predictions.probabilities[:, 2], atol=1e-6)


def test_the_baseline_predicts_the_most_common_diagnosis() -> None:
    predictions = predictions_of(np.eye(7)[[0, 1, 2]], np.array([4, 5, 5]))
    assert majority_baseline(predictions).predicted.tolist() == [5, 5, 5]


def test_predictions_are_calibrated_and_of_the_right_photos(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8))
    table = predictions_of(np.eye(7)[:6], np.arange(6)).photos
    write_csv(tmp_path / "image_ids.csv", table[["image_id"]])
    write_csv(tmp_path / "test.csv", table.iloc[[4, 1]])
    model = TrainedModel(classifier_of(temperature=4.0, prevalence=PREVALENCE), SUBSPACE)
    found = predict_test_set(model, DATASET, tmp_path, tmp_path / "test.csv", "balanced", 4)
    assert list(found.photos["image_id"]) == ["P4", "P1"]
    assert found.labels.tolist() == [4, 1]
    # The mean logits of four mirrored views, decided by the card's rule.
    photos = to_float(torch.from_numpy(np.load(tmp_path / "images.npy")[[4, 1]]))
    views = [photos, photos.flip(2), photos.flip(3), photos.flip(2, 3)]
    with torch.inference_mode():
        logits = torch.stack([model.classifier.logits(view.clone()) for view in views]).mean(0)
    fitted = model.classifier.card.use(4)
    expected = fitted.calibration.probabilities(logits.numpy())
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.predicted.tolist() == fitted.decide(expected, "balanced").tolist()
    assert found.distances is not None
    assert found.distances.shape == (2,)
    assert (found.probabilities.max(axis=1) < found.uncalibrated.max(axis=1)).all()
    other = TrainedModel(classifier_of(image_size=64), SUBSPACE)
    with pytest.raises(LesionsError, match="photos of 32 px, but MobileNetV2 was trained with 64"):
        predict_test_set(other, DATASET, tmp_path, tmp_path / "test.csv", "balanced", 1)
    changed = DATASET.model_copy(update={"classes": CODES[::-1]})
    with pytest.raises(LesionsError, match=r"with the classes akiec, bcc.*Run `dvc repro"):
        predict_test_set(model, changed, tmp_path, tmp_path / "test.csv", "balanced", 1)


def test_photos_of_patients_keep_their_patient() -> None:
    one = random_predictions(10)
    one.photos["patient_id"] = "X"
    assert list(as_table(one))[:3] == ["image_id", "lesion_id", "patient_id"]
    assert (one.groups == "X").all()
