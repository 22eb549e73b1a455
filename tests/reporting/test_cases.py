"""The cases: what each model makes of each test photo, and which labels are suspect."""

import numpy as np
import pandas as pd
import pytest
from helpers import CODES, DATASET, card_of

from lesions.reporting import cases
from lesions.reporting.cases import Case, find_suspects, groups_with_thresholds, list_cases
from lesions.scoring.operating_points import OperatingPoint


def point(group: str, threshold: float, sensitivity: float = 0.9) -> OperatingPoint:
    return OperatingPoint(
        group=group, sensitivity=sensitivity, threshold=threshold, assured=False, low=0.7, high=1
    )


def table_of(rows: dict[str, tuple[str, dict[str, float]]]) -> pd.DataFrame:
    """Make predictions.csv: image_id to actual class and some probabilities; nv has the rest."""
    found = []
    for image_id, (actual, given) in rows.items():
        shares = dict.fromkeys(CODES, 0.0) | given
        shares["nv"] = 1 - sum(given.values())
        best = max(shares, key=shares.__getitem__)
        found.append({"image_id": image_id, "actual": actual, "predicted": best, **shares})
    return pd.DataFrame(found)


ROWS: dict[str, tuple[str, dict[str, float]]] = {
    "right": ("nv", {"bcc": 0.3}),  # less certain than the false alarm, and needs no look
    "missed": ("mel", {"mel": 0.04}),  # and wrong
    "found": ("mel", {"mel": 0.3}),  # by the threshold, though called nv
    "alarm": ("nv", {"mel": 0.2}),
    "sure": ("bkl", {"df": 0.97}),
}


def cases_of(rows: dict[str, tuple[str, dict[str, float]]]) -> list[Case]:
    predictions = table_of(rows)
    # The table of the split is in another order.
    test = pd.DataFrame(
        {"image_id": predictions["image_id"], "dx": predictions["actual"], "sex": "female"}
    )[::-1]
    points = (point("melanoma", 0.1), point("malignant", 0.02, 0.8))
    return list_cases(DATASET, {"m": card_of(operating_points=points)}, test, {"m": predictions}, 1)


def test_a_case_says_what_is_wrong_missed_and_a_false_alarm() -> None:
    found = {case.image_id: case for case in cases_of(ROWS)}
    judged = {name: case.judged["m"] for name, case in found.items()}
    assert {name for name in ROWS if found[name].wrong == ["m"]} == {"missed", "found", "sure"}
    assert [name for name in ROWS if judged[name].missed] == ["missed"]
    assert judged["missed"].missed == ("melanoma",)  # not by the threshold for .80
    assert [name for name in ROWS if judged[name].false_alarms] == ["alarm"]
    assert found["sure"].confidence_of_mistake == pytest.approx(0.97)
    assert judged["found"].decisions == {"most-probable": "nv", "balanced": "nv"}
    assert found["right"].traits == {"sex": "female"}


def test_what_needs_a_look_comes_first_the_most_confident_mistake_before_the_others() -> None:
    order = [case.image_id for case in cases_of(ROWS)]
    assert order == ["sure", "missed", "found", "alarm", "right"]
    assert [case.needs_a_look for case in cases_of(ROWS)] == [True, True, True, True, False]


def test_only_groups_with_a_threshold_are_listed() -> None:
    card = card_of(operating_points=(point("malignant", 0.1), point("melanoma", 0.1, 0.8)))
    assert groups_with_thresholds(DATASET, [card], 1) == ["malignant"]


def test_swapped_labels_are_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cleanlab", reason="the extra `labels` is not installed")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 300)
    shares = rng.dirichlet(np.ones(7), 300) * 0.3 + 0.7 * np.eye(7)[labels]
    labels[:9] = (labels[:9] + 3) % 7
    test = pd.DataFrame({"image_id": [f"p{n}" for n in range(300)]})
    test["dx"] = np.array(DATASET.classes)[labels]
    found = find_suspects(DATASET, test, shares)
    assert found is not None
    assert found[:9].sum() >= 6
    assert found[9:].sum() <= 3
    assert find_suspects(DATASET, test[:20], shares[:20]) is None
    monkeypatch.setattr(cases, "can_find_suspects", lambda: False)
    assert find_suspects(DATASET, test, shares) is None
