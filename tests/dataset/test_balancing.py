import math

import pandas as pd
import pytest
from helpers import CODES, metadata_of
from hypothesis import given
from hypothesis import strategies as st

from lesions.dataset.balancing import balance, balancing_factors

counts = st.dictionaries(st.sampled_from(CODES), st.integers(1, 10_000), min_size=1)


@given(counts)
def test_multiply_takes_the_whole_number_nearest_to_the_largest(sizes: dict[str, int]) -> None:
    largest = max(sizes.values())
    for code, factor in balancing_factors(sizes, "multiply").items():
        gap = abs(factor * sizes[code] - largest)
        others = [abs(other * sizes[code] - largest) for other in (factor - 1, factor + 1) if other]
        assert all(gap <= other for other in others)


@given(counts)
def test_sqrt_is_half_way(sizes: dict[str, int]) -> None:
    whole, half = balancing_factors(sizes, "multiply"), balancing_factors(sizes, "sqrt")
    for code in sizes:
        assert abs(half[code] - math.sqrt(whole[code])) <= 0.5
        assert half[code] >= 1


@pytest.mark.parametrize(
    ("method", "mel", "df"), [("multiply", 3, 10), ("sqrt", 2, 3), ("none", 1, 1)]
)
def test_rows_are_repeated_and_counted(method: str, mel: int, df: int) -> None:
    train = metadata_of({"nv": [1] * 30, "mel": [2] * 5, "df": [1] * 3})
    rows, done = balance(train, CODES, method)
    repeats = rows["image_id"].value_counts()
    expected = train.set_index("image_id")["dx"].map({"nv": 1, "mel": mel, "df": df})
    pd.testing.assert_series_equal(repeats.sort_index(), expected.sort_index(), check_names=False)
    assert done.set_index("dx")["factor"].to_dict() == {"df": df, "mel": mel, "nv": 1}
    assert done["observations"].sum() == len(rows)
    assert list(rows.columns) == list(train.columns)
