import numpy as np
import pytest
from sklearn import metrics

from lesions.diagnoses import CODES
from lesions.errors import LesionsError
from lesions.scoring import headline, per_class, predictions, report


def random_answers(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(7), rng.integers(0, 7, n - 7)])
    probabilities = rng.dirichlet(np.ones(7), n) + np.eye(7)[labels] * 0.2
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def test_headline_against_scikit_learn() -> None:
    probabilities, labels = random_answers()
    answers = probabilities.argmax(axis=1)
    found = headline(probabilities, labels)
    assert found == {
        "accuracy": pytest.approx(metrics.accuracy_score(labels, answers), abs=1e-4),
        "balanced_accuracy": pytest.approx(
            metrics.balanced_accuracy_score(labels, answers), abs=1e-4
        ),
        "weighted_f1": pytest.approx(
            metrics.f1_score(labels, answers, average="weighted"), abs=1e-4
        ),
        "macro_f1": pytest.approx(metrics.f1_score(labels, answers, average="macro"), abs=1e-4),
        "roc_auc": pytest.approx(
            metrics.roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-4
        ),
        "melanoma_sensitivity": pytest.approx(
            metrics.recall_score(labels == 4, answers == 4), abs=1e-4
        ),
        "baseline_accuracy": pytest.approx(np.bincount(labels).max() / len(labels), abs=1e-4),
    }
    assert len(found) <= 8


def test_per_class_by_hand() -> None:
    # Truth nv nv nv mel mel bkl; answers nv nv mel mel nv bkl.
    labels = np.array([5, 5, 5, 4, 4, 2])
    probabilities = np.eye(7)[[5, 5, 4, 4, 5, 2]] * 0.4 + 0.6 / 7
    nv = per_class(probabilities, labels).set_index("dx").loc["nv"]
    assert nv["support"] == 3
    assert nv["sensitivity"] == pytest.approx(2 / 3)
    assert nv["specificity"] == pytest.approx(2 / 3)
    assert nv["precision"] == pytest.approx(2 / 3)
    assert nv["f1"] == pytest.approx(2 / 3)
    assert nv["roc_auc"] == pytest.approx(2 / 3)


def test_a_diagnosis_that_does_not_occur_is_not_scored() -> None:
    labels = np.array([5, 5, 2, 2])
    probabilities = np.eye(7)[[5, 4, 2, 2]]
    table = per_class(probabilities, labels).set_index("dx")
    assert table.loc["mel", "support"] == 0
    assert table.loc["mel", ["sensitivity", "f1", "roc_auc", "average_precision"]].isna().all()
    assert table.loc["mel", "specificity"] == 0.75
    assert table["precision"].isna()["df"]
    found = headline(probabilities, labels)
    assert "melanoma_sensitivity" not in found
    assert found["balanced_accuracy"] == 0.75
    assert "-" in report(table.reset_index())


def test_one_diagnosis_alone() -> None:
    found = headline(np.eye(7)[[5, 5]], np.array([5, 5]))
    assert found["accuracy"] == found["baseline_accuracy"] == 1
    assert "roc_auc" not in found


def test_constant_answers_score_as_the_baseline() -> None:
    labels = np.array([5] * 8 + [4] * 2)
    found = headline(np.full((10, 7), 1 / 7) + np.eye(7)[5] * 0.1, labels)
    assert found["accuracy"] == found["baseline_accuracy"] == 0.8
    assert found["balanced_accuracy"] == 0.5
    assert found["roc_auc"] == 0.5
    assert found["melanoma_sensitivity"] == 0


def test_broken_probabilities_are_refused() -> None:
    probabilities, labels = random_answers()
    probabilities[5, 2] = np.nan
    with pytest.raises(LesionsError, match="test photo 5"):
        headline(probabilities, labels)
    with pytest.raises(LesionsError, match="no photos"):
        headline(probabilities[:0], labels[:0])


def test_predictions_table() -> None:
    import pandas as pd

    probabilities, labels = random_answers(10)
    test = pd.DataFrame({"image_id": list("abcdefghij"), "lesion_id": list("jihgfedcba")})
    table = predictions(test, probabilities, labels)
    assert list(table.columns) == ["image_id", "lesion_id", "actual", "predicted", *CODES]
    assert list(table["actual"]) == [CODES[label] for label in labels]
    np.testing.assert_allclose(table[list(CODES)].sum(axis=1), 1, atol=1e-5)
