import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from lesions.scoring.operating_points import SENSITIVITIES, fit_operating_points, score

GROUPS = {"melanoma": [4], "malignant": [0, 1, 4]}


def own_units(count: int) -> "pd.Series[str]":
    """Give each photo a lesion of its own."""
    return pd.Series([str(number) for number in range(count)])


def probabilities_of(melanoma: np.ndarray) -> np.ndarray:
    """Probabilities of melanoma; the rest is nevus."""
    found = np.zeros((len(melanoma), 7))
    found[:, 4], found[:, 5] = melanoma, 1 - melanoma
    return found


def test_scores() -> None:
    one = np.array([[0.1, 0.2, 0.05, 0.05, 0.3, 0.2, 0.1]])
    assert score(one, [4])[0] == pytest.approx(0.3)
    assert score(one, [0, 1, 4])[0] == pytest.approx(0.6)


def test_each_threshold_is_the_highest_that_reaches_its_sensitivity() -> None:
    rng = np.random.default_rng(0)
    melanoma = rng.random(200)
    labels = np.where(np.arange(200) < 42, 4, 5)
    points = fit_operating_points(probabilities_of(melanoma), labels, own_units(200), GROUPS)
    plain = [point for point in points if not point.assured]
    assert [(one.group, one.sensitivity) for one in plain] == [
        (group, aim) for group in GROUPS for aim in SENSITIVITIES
    ]
    for point in plain[:3]:
        reached = (melanoma[:42] >= point.threshold).sum()
        assert reached == np.ceil(point.sensitivity * 42)
        assert (melanoma[:42] >= point.threshold + 2e-6).sum() == reached - 1
        expected = beta(reached, 43 - reached).ppf([0.025, 0.975])
        assert (point.low, point.high) == pytest.approx(tuple(expected), abs=1e-4)


def test_the_expected_interval_covers_the_sensitivity_on_new_lesions() -> None:
    rng = np.random.default_rng(1)
    labels = np.full(42, 4)
    covered = []
    for _ in range(300):
        scores = rng.random(42)
        points = fit_operating_points(probabilities_of(scores), labels, own_units(42), GROUPS)
        point = next(one for one in points if one.sensitivity == 0.9 and not one.assured)
        true_sensitivity = 1 - point.threshold  # of uniform scores
        covered.append(point.low <= true_sensitivity <= point.high)
    assert 0.91 < np.mean(covered) < 0.99


def test_photos_of_a_lesion_count_once() -> None:
    # Nine lesions with one photo of a high score, one with nine photos of low scores.
    melanoma = np.array([0.9] * 9 + [0.1] * 9)
    units = pd.Series([*map(str, range(9)), *["nine"] * 9])
    points = fit_operating_points(probabilities_of(melanoma), np.full(18, 4), units, GROUPS)
    assert [point.threshold for point in points[:3]] == [0.9, 0.9, 0.1]
    lower, _ = beta(9, 2).ppf([0.025, 0.975])
    assert points[0].low == pytest.approx(lower, abs=1e-4)  # 9 of 10 lesions, not of 18 photos


def test_without_photos_of_a_group_there_are_no_points() -> None:
    probabilities, nevi = probabilities_of(np.full(5, 0.5)), np.full(5, 5)
    assert fit_operating_points(probabilities, nevi, own_units(5), GROUPS) == ()


def test_of_a_patient_with_photos_of_other_classes_the_cases_count_once() -> None:
    # Ten patients, each with one melanoma and nine nevi.
    labels = np.tile([4] + [5] * 9, 10)
    units = pd.Series(np.repeat([f"patient {n}" for n in range(10)], 10))
    points = fit_operating_points(probabilities_of(np.full(100, 0.3)), labels, units, GROUPS)
    lower, _ = beta(10, 1).ppf([0.025, 0.975])
    assert [point.low for point in points] == pytest.approx([lower] * len(points), abs=1e-4)


def test_fewer_than_ten_cases_give_no_threshold() -> None:
    scores = np.linspace(0.1, 0.9, 9)
    assert fit_operating_points(probabilities_of(scores), np.full(9, 4), own_units(9), GROUPS) == ()


@pytest.mark.parametrize("cases", [42, 100])
def test_an_assured_threshold_keeps_its_promise(cases: int) -> None:
    # A plain one finds .90 of new cases about half the time, an assured one at least 95 times in
    # 100. With n cases the sensitivity of uniform scores is 1 - threshold.
    rng = np.random.default_rng(2)
    labels, kept = np.full(cases, 4), {False: 0, True: 0}
    for _ in range(400):
        scores = probabilities_of(rng.random(cases))
        for point in fit_operating_points(scores, labels, own_units(cases), {"melanoma": [4]}):
            if point.sensitivity == 0.9:
                kept[point.assured] += 1 - point.threshold >= 0.9
    assert kept[True] >= 0.93 * 400
    assert 0.25 * 400 < kept[False] < 0.65 * 400


def test_too_few_cases_have_no_assured_threshold() -> None:
    # Even if all 20 are found, the tolerance limit is .05 ** (1 / 20) = .861.
    scores = np.linspace(0.1, 0.9, 20)
    points = fit_operating_points(
        probabilities_of(scores), np.full(20, 4), own_units(20), {"melanoma": [4]}
    )
    assert [(one.sensitivity, one.assured) for one in points] == [
        (0.8, False),
        (0.8, True),
        (0.9, False),
        (0.95, False),
    ]
