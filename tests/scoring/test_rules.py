import numpy as np
import pytest

from lesions.scoring.rules import decide, fit_exponent


def test_both_rules_by_hand() -> None:
    probabilities = np.array([[0.2, 0.8], [0.05, 0.95]])
    prevalence = np.array([0.1, 0.9])
    assert decide(probabilities, "most-probable", prevalence, 1.0).tolist() == [1, 1]
    assert decide(probabilities, "balanced", prevalence, 1.0).tolist() == [0, 1]
    assert decide(probabilities, "balanced", prevalence, 0.5).tolist() == [1, 1]
    assert decide(probabilities, "balanced", prevalence, 0.0).tolist() == [1, 1]


def test_a_diagnosis_without_a_prevalence_is_never_predicted() -> None:
    probabilities = np.array([[0.6, 0.4]])
    assert decide(probabilities, "balanced", np.array([0.0, 1.0]), 1.0).tolist() == [1]


@pytest.mark.parametrize("knows_the_prevalence", [True, False])
def test_the_exponent_follows_from_the_probabilities(knows_the_prevalence: bool) -> None:
    # Bayes' rule says 1 for true probabilities, and 0 for those of a network that was trained on
    # equally many photos of each diagnosis.
    rng = np.random.default_rng(0)
    prevalence = np.array([0.9, 0.08, 0.02])
    labels = rng.choice(3, 20_000, p=prevalence)
    scores = rng.normal(0, 1, (20_000, 3)) + 2 * np.eye(3)[labels]
    logits = 2 * scores + np.log(prevalence) * knows_the_prevalence  # unit normals, 2 apart
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    exponent = fit_exponent(probabilities, labels, prevalence, np.ones(20_000))
    assert exponent == pytest.approx(0.8 if knows_the_prevalence else 0.0, abs=0.21)


def test_without_a_gain_the_exponent_is_the_smallest() -> None:
    labels = np.array([0, 1, 1])
    assert fit_exponent(np.eye(2)[labels], labels, np.array([0.3, 0.7]), np.ones(3)) == 0
