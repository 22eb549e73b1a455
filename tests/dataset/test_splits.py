import pandas as pd
import pytest
from helpers import metadata_of
from hypothesis import assume, given
from hypothesis import strategies as st

from lesions.common.errors import LesionsError
from lesions.dataset.diagnoses import CODES
from lesions.dataset.metadata import PUBLISHED_PAIRS, join_lesions, read_pairs
from lesions.dataset.splits import SUBSETS, find_leak, split, summary

lesion_sizes = st.lists(st.integers(1, 4), min_size=0, max_size=30).map(lambda more: [1] * 8 + more)
tables = st.fixed_dictionaries(dict.fromkeys(CODES, lesion_sizes)).map(metadata_of)
shares = st.sampled_from([0.08, 0.1, 0.13])
holdouts = st.sampled_from(["once-photographed", "any-lesion"])


@given(table=tables, val=shares, test=shares, holdout=holdouts, seed=st.integers(0, 2**32 - 1))
def test_split(table: pd.DataFrame, val: float, test: float, holdout: str, seed: int) -> None:
    sizes = table["lesion_id"].value_counts()
    pool = (sizes == 1).sum() if holdout == "once-photographed" else len(table)
    asked = sum(max(len(CODES), int(share * len(table))) for share in (val, test))
    assume(asked < 0.9 * pool or asked > pool)
    if asked > pool:
        with pytest.raises(LesionsError, match=r"photos instead of \d+"):
            split(table, val, test, holdout, seed)
        return
    subsets = split(table, val, test, holdout, seed)
    lesions = {subset: set(rows["lesion_id"]) for subset, rows in subsets.items()}
    # Every photo once; no lesion in two subsets; every diagnosis on each.
    together = pd.concat(subsets.values())
    assert sorted(together["image_id"]) == sorted(table["image_id"])
    assert sum(map(len, lesions.values())) == table["lesion_id"].nunique()
    assert all(set(rows["dx"]) == set(CODES) for rows in subsets.values())
    # Shares within one observation, save where each diagnosis needs one photo.
    for subset, share in (("val", val), ("test", test)):
        assert abs(len(subsets[subset]) - max(len(CODES), share * len(table))) <= 1
    if holdout == "once-photographed":
        assert all(sizes[lesion] == 1 for lesion in lesions["val"] | lesions["test"])
    # The same again, in whatever order the rows come.
    again = split(table.sample(frac=1, random_state=1), val, test, holdout, seed)
    for subset in SUBSETS:
        pd.testing.assert_frame_equal(subsets[subset], again[subset])


def test_any_photo_leaks_and_says_how_much() -> None:
    table = metadata_of({dx: [1, 2, 3] * 20 for dx in CODES})
    subsets = split(table, 0.1, 0.1, "any-photo", 0)
    assert sorted(pd.concat(subsets.values())["image_id"]) == sorted(table["image_id"])
    in_train = set(subsets["train"]["lesion_id"])
    leak = find_leak(subsets["train"], subsets["test"], "test")
    assert leak.leaking == sum(lesion in in_train for lesion in subsets["test"]["lesion_id"]) > 30
    assert leak.metric == {"leaking_photos": leak.leaking}
    assert f"{leak.leaking} of 84 test photos" in leak.warning


@pytest.mark.parametrize("holdout", ["once-photographed", "any-lesion"])
def test_the_honest_rules_do_not_leak(holdout: str) -> None:
    subsets = split(metadata_of({dx: [1, 2, 3] * 20 for dx in CODES}), 0.05, 0.05, holdout, 0)
    leak = find_leak(subsets["train"], subsets["test"], "test")
    assert (bool(leak), leak.metric, leak.warning) == (False, {}, "")


def test_seed_decides() -> None:
    table = metadata_of({dx: [1] * 20 for dx in CODES})
    first, second = (split(table, 0.1, 0.1, "any-lesion", seed)["test"] for seed in (0, 1))
    assert set(first["image_id"]) != set(second["image_id"])


def test_stratified_by_diagnosis() -> None:
    table = metadata_of({dx: [1] * (400 if dx == "nv" else 50) for dx in CODES})
    counts = summary(split(table, 0.1, 0.1, "once-photographed", 0))
    assert list(counts.loc["nv"]) == [320, 40, 40]
    assert list(counts.loc["mel"]) == [40, 5, 5]


def test_published_duplicates_stay_together() -> None:
    table = metadata_of({dx: [1] * 40 for dx in CODES})
    pair, *others = read_pairs(PUBLISHED_PAIRS)
    table.loc[0, "image_id"], table.loc[1, "image_id"] = pair
    joined = join_lesions(table, [pair, *others])
    subsets = split(joined, 0.1, 0.1, "once-photographed", 0)
    assert set(pair) <= set(subsets["train"]["image_id"])
    for seed in range(20):
        subsets = split(joined, 0.3, 0.3, "any-lesion", seed)
        counts = sorted(rows["image_id"].isin(pair).sum() for rows in subsets.values())
        assert counts == [0, 0, 2]


def test_lesion_with_two_diagnoses_only_trains() -> None:
    table = metadata_of({dx: [1] * 10 for dx in CODES})
    table.loc[:1, "lesion_id"] = "disputed"
    table.loc[1, "dx"] = "mel"
    for seed in range(20):
        subsets = split(table, 0.2, 0.2, "any-lesion", seed)
        assert (subsets["train"]["lesion_id"] == "disputed").sum() == 2


def test_quotas_are_the_largest_remainders() -> None:
    # 12 photos for test: shares 7.5, 2.7 and 1.8 of 100, 36 and 24; .8 and .7 are rounded up.
    table = metadata_of({"nv": [1] * 100, "mel": [1] * 36, "df": [1] * 24})
    test = split(table, 0.075, 0.075, "once-photographed", 0)["test"]
    assert test["dx"].value_counts().to_dict() == {"nv": 7, "mel": 3, "df": 2}


def test_shares_that_cannot_be_had_are_refused() -> None:
    table = metadata_of({dx: [1] * 10 + [2] * 10 for dx in CODES})
    with pytest.raises(LesionsError, match=r"val has \d+ photos instead of 63: only 70"):
        split(table, 0.3, 0.3, "once-photographed", 0)


@pytest.mark.parametrize("mel", [[1, 1], [1], [2, 2, 2]])
def test_too_few_lesions_of_a_diagnosis(mel: list[int]) -> None:
    table = metadata_of({dx: mel if dx == "mel" else [1] * 20 for dx in CODES})
    with pytest.raises(LesionsError, match=r"no photo of mel is left for.*holdout"):
        split(table, 0.1, 0.1, "once-photographed", 0)
