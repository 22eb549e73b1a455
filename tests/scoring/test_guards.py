import numpy as np
import pandas as pd

from lesions.scoring.guards import MIN_CASES, MIN_GROUPS, enough_cases, enough_groups
from lesions.scoring.intervals import percentile_interval


def test_lesions_are_counted_not_photos() -> None:
    groups = pd.Series(np.repeat([f"L{number}" for number in range(MIN_GROUPS)], 2))
    assert enough_groups(groups)
    assert not enough_groups(groups[2:])
    few = np.arange(len(groups)) < 2 * MIN_CASES
    assert enough_cases(groups, few)
    assert not enough_cases(groups, few, np.arange(len(groups)) < 2 * MIN_CASES - 2)


def test_a_metric_that_many_resamples_do_not_define_has_no_interval() -> None:
    values = np.arange(1000.0)
    values[:50] = np.nan
    assert percentile_interval(values)[0] > 50
    values[50] = np.nan
    assert np.isnan(percentile_interval(values)).all()
    assert np.isnan(percentile_interval(np.ones(1000))).all()
