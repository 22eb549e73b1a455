import numpy as np

from lesions.scoring.rules import decide


def test_both_rules_by_hand() -> None:
    probabilities = np.array([[0.2, 0.8], [0.05, 0.95]])
    prevalence = np.array([0.1, 0.9])
    assert decide(probabilities, "most-probable", prevalence).tolist() == [1, 1]
    assert decide(probabilities, "balanced", prevalence).tolist() == [0, 1]


def test_a_diagnosis_without_a_prevalence_is_never_predicted() -> None:
    probabilities = np.array([[0.6, 0.4]])
    assert decide(probabilities, "balanced", np.array([0.0, 1.0])).tolist() == [1]


def test_balanced_has_the_highest_balanced_accuracy_of_all_exponents() -> None:
    rng = np.random.default_rng(0)
    prevalence = np.array([0.9, 0.08, 0.02])
    labels = rng.choice(3, 50_000, p=prevalence)
    scores = rng.normal(0, 1, (50_000, 3)) + 2 * np.eye(3)[labels]
    logits = 2 * scores + np.log(prevalence)  # unit normals, 2 apart: these probabilities are true
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def balanced_accuracy(predicted: np.ndarray) -> float:
        return float(np.mean([(predicted[labels == label] == label).mean() for label in range(3)]))

    ours = balanced_accuracy(decide(probabilities, "balanced", prevalence))
    for exponent in (0, 0.5, 0.8, 1.2):
        assert ours > balanced_accuracy((probabilities / prevalence**exponent).argmax(axis=1))
