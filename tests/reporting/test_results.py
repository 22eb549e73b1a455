"""The results as data, read from what the stages wrote."""

from pathlib import Path

import numpy as np
import pandas as pd

from lesions.common.artifacts import write_csv
from lesions.dataset.description import RESERVED
from lesions.evaluation.comparison import verdicts
from lesions.reporting import results


def test_names_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    table = pd.DataFrame({"dx": ["NA", "007", "null"], "value": [1.5, np.nan, 2.0]})
    write_csv(tmp_path / "t.csv", table)
    found = results.read_csv(tmp_path / "t.csv")
    assert list(found["dx"]) == ["NA", "007", "null"]
    assert found["value"].isna().tolist() == [False, True, False]
    assert set(results.TEXT) <= RESERVED  # no class is taken for such a column


def test_a_comparison_with_intervals_gives_a_verdict(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "first": "A",
            "second": "B",
            "metric": ["accuracy", "auc", "f1"],
            "title": ["accuracy", "AUC", "F1"],
            "difference": [0.2, 0.01, -0.1],
            "low": [0.1, -0.1, np.nan],
            "high": [0.3, 0.1, np.nan],
            "significant": [True, False, False],
            "confidence": 0.95,
        }
    )
    starts = {"A": "imagenet", "B": "imagenet"}
    write_csv(tmp_path / "t.csv", table)
    stored = results._rows(results.read_csv(tmp_path / "t.csv"))
    test = results.TestSet("test", 50, [], stored, *[[]] * 8)
    expected = verdicts(table, 50, starts, "lesion")
    assert results._verdicts(test, starts, "lesion") == expected
    assert "A is better in accuracy" in expected[0]
    assert "do not differ significantly in AUC" in expected[0]
