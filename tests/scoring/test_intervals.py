import numpy as np
import pytest
from scipy.stats import binomtest

from lesions.scoring import intervals


@pytest.mark.parametrize(("hits", "count"), [(0, 12), (8, 42), (12, 12), (500, 1001)])
def test_wilson_against_scipy(hits: int, count: int) -> None:
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert intervals.wilson_interval(hits / count, count) == pytest.approx(
        (expected.low, expected.high), abs=1e-6
    )


def test_wilson_of_nothing() -> None:
    assert np.isnan(intervals.wilson_interval(np.nan, 0)).all()


def test_lesions_are_resampled_whole_and_reproducibly(monkeypatch: pytest.MonkeyPatch) -> None:
    lesions = np.array(["a", "b", "b", "c", "c", "c"])
    drawn = np.concatenate(list(intervals.bootstrap_weights(lesions)))
    assert drawn.shape == (intervals.RESAMPLES, 6)
    assert (drawn[:, 1] == drawn[:, 2]).all()
    assert (drawn[:, 3] == drawn[:, 5]).all()
    assert (drawn[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert drawn[:, 0].mean() == pytest.approx(1, abs=0.1)
    monkeypatch.setattr(intervals, "_BLOCK", 100)  # in many blocks
    assert (np.concatenate(list(intervals.bootstrap_weights(lesions))) == drawn).all()


def test_percentile_leaves_out_what_is_undefined() -> None:
    values = np.append(np.linspace(0, 1, 1001), [np.nan] * 50)
    assert intervals.percentile_interval(values) == pytest.approx((0.025, 0.975))
    assert np.isnan(intervals.percentile_interval(np.array([np.nan]))).all()
