import pandas as pd
import pytest
from helpers import CODES, ROOT, metadata_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lesions.common.errors import LesionsError
from lesions.common.params import Holdout
from lesions.dataset.metadata import join_groups, read_pairs
from lesions.dataset.splits import (
    SUBSETS,
    absent_classes,
    find_leak,
    leave_out,
    prove,
    split,
    summary,
)

lesion_sizes = st.lists(st.integers(1, 4), min_size=0, max_size=30).map(lambda more: [1] * 8 + more)
tables = st.fixed_dictionaries(dict.fromkeys(CODES, lesion_sizes)).map(metadata_of)
shares = st.sampled_from([0.08, 0.1, 0.13])
holdouts = st.sampled_from(["once-photographed", "any-lesion"])


@settings(deadline=None)
@given(table=tables, val=shares, test=shares, holdout=holdouts, seed=st.integers(0, 2**32 - 1))
def test_split(table: pd.DataFrame, val: float, test: float, holdout: Holdout, seed: int) -> None:
    sizes = table["lesion_id"].value_counts()
    pool = (sizes == 1).sum() if holdout == "once-photographed" else len(table)
    asked = sum(max(len(CODES), int(share * len(table))) for share in (val, test))
    assume(asked < 0.9 * pool or asked > pool)
    if asked > pool:
        with pytest.raises(LesionsError, match=r"photos instead of \d+"):
            split(table, CODES, val, test, holdout, seed)
        return
    subsets = split(table, CODES, val, test, holdout, seed)
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
    again = split(table.sample(frac=1, random_state=1), CODES, val, test, holdout, seed)
    for subset in SUBSETS:
        pd.testing.assert_frame_equal(subsets[subset], again[subset])


def test_any_photo_leaks_and_says_how_much() -> None:
    table = metadata_of({dx: [1, 2, 3] * 20 for dx in CODES})
    subsets = split(table, CODES, 0.1, 0.1, "any-photo", 0)
    assert sorted(pd.concat(subsets.values())["image_id"]) == sorted(table["image_id"])
    in_train = set(subsets["train"]["lesion_id"])
    leak = find_leak(subsets["train"], subsets["test"], "test")
    assert leak.leaking == sum(lesion in in_train for lesion in subsets["test"]["lesion_id"]) > 30
    assert leak.metric == {"leaking_photos": leak.leaking}
    assert f"{leak.leaking} of 84 test photos" in leak.warning


@pytest.mark.parametrize("holdout", ["once-photographed", "any-lesion"])
def test_the_honest_rules_do_not_leak(holdout: Holdout) -> None:
    subsets = split(
        metadata_of({dx: [1, 2, 3] * 20 for dx in CODES}), CODES, 0.05, 0.05, holdout, 0
    )
    leak = find_leak(subsets["train"], subsets["test"], "test")
    assert (bool(leak), leak.metric, leak.warning) == (False, {}, "")


def test_seed_decides() -> None:
    table = metadata_of({dx: [1] * 20 for dx in CODES})
    first, second = (split(table, CODES, 0.1, 0.1, "any-lesion", seed)["test"] for seed in (0, 1))
    assert set(first["image_id"]) != set(second["image_id"])


def test_stratified_by_diagnosis() -> None:
    table = metadata_of({dx: [1] * (400 if dx == "nv" else 50) for dx in CODES})
    counts = summary(split(table, CODES, 0.1, 0.1, "once-photographed", 0), CODES)
    assert list(counts.loc["nv"]) == [320, 40, 40]
    assert list(counts.loc["mel"]) == [40, 5, 5]


def test_published_duplicates_stay_together() -> None:
    table = metadata_of({dx: [1] * 40 for dx in CODES})
    pair, *others = read_pairs(ROOT / "datasets/ham10000_same_lesion.csv")
    table.loc[0, "image_id"], table.loc[1, "image_id"] = pair
    joined = join_groups(table, [pair, *others])
    subsets = split(joined, CODES, 0.1, 0.1, "once-photographed", 0)
    assert set(pair) <= set(subsets["train"]["image_id"])
    for seed in range(20):
        subsets = split(joined, CODES, 0.3, 0.3, "any-lesion", seed)
        counts = sorted(rows["image_id"].isin(pair).sum() for rows in subsets.values())
        assert counts == [0, 0, 2]


def test_a_group_of_several_classes_is_held_out_as_its_rarest() -> None:
    table = metadata_of({"nv": [1] * 60, "mel": [1] * 20})
    # Every patient has three nevi and one melanoma.
    table["patient_id"] = [f"patient {k // 3}" for k in range(60)] + [
        f"patient {k}" for k in range(20)
    ]
    subsets = split(table, CODES, 0.1, 0.1, "any-lesion", 0)
    assert {name: len(rows) for name, rows in subsets.items()} == {
        "train": 64,
        "val": 8,
        "test": 8,
    }
    assert all((rows["dx"] == "mel").sum() * 4 == len(rows) for rows in subsets.values())
    patients = [set(rows["patient_id"]) for rows in subsets.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 20
    proof = prove(table, subsets, CODES, 0)
    assert proof.startswith("0 of 20 patients are in two subsets; a split by photo would have put ")
    assert int(proof.split()[-12]) >= 7  # of 8 test photos


def test_a_group_of_very_many_photos_can_be_held_out() -> None:
    table = metadata_of({"nv": [40] * 5, "mel": [1] * 30})
    subsets = split(table, CODES, 0.1, 0.1, "any-lesion", 0)
    assert [(rows["dx"] == "nv").sum() for rows in subsets.values()] == [120, 40, 40]


def test_a_split_that_is_given_is_taken_and_its_leaks_are_counted() -> None:
    table = metadata_of({dx: [2] * 10 for dx in CODES})
    table["split"] = ["train", "Valid", "TEST", "0", "2"] * 28
    subsets = split(table, CODES, 0.5, 0.1, "given", 0)
    assert [len(rows) for rows in subsets.values()] == [56, 28, 56]
    leak = find_leak(subsets["train"], subsets["test"], "test")
    assert leak.leaking > 10
    assert leak.warning.startswith(f"LEAKING: {leak.leaking} of 56 test photos show a lesion that")
    # Validation is drawn from training, by lesion, where the split names none.
    table["split"] = ["train", "train", "test", "train"] * 35
    subsets = split(table, CODES, 0.2, 0.1, "given", 0)
    assert len(subsets["test"]) == 35
    assert 15 <= len(subsets["val"]) <= 21
    assert not set(subsets["val"]["lesion_id"]) & set(subsets["train"]["lesion_id"])


def test_a_split_that_is_not_given_or_names_something_else_is_refused() -> None:
    table = metadata_of({dx: [1] * 10 for dx in CODES})
    with pytest.raises(LesionsError, match="the source names no subsets"):
        split(table, CODES, 0.1, 0.1, "given", 0)
    table["split"] = "fold 1"
    with pytest.raises(LesionsError, match=r"split is 'fold 1' for P_akiec_0_0 \(70 photos"):
        split(table, CODES, 0.1, 0.1, "given", 0)


def test_without_groups_the_proof_says_what_is_missing() -> None:
    table = metadata_of({dx: [1] * 20 for dx in CODES})
    table["lesion_id"] = table["image_id"]
    subsets = split(table, CODES, 0.1, 0.1, "any-lesion", 0)
    assert prove(table, subsets, CODES, 0) == (
        "0 of 140 photos are in two subsets; the table names no lesions or patients, so they may "
        "be: add their ids"
    )


def test_quotas_are_the_largest_remainders() -> None:
    # 12 photos for test: shares 7.5, 2.7 and 1.8 of 100, 36 and 24; .8 and .7 are rounded up.
    table = metadata_of({"nv": [1] * 100, "mel": [1] * 36, "df": [1] * 24})
    test = split(table, CODES, 0.075, 0.075, "once-photographed", 0)["test"]
    assert test["dx"].value_counts().to_dict() == {"nv": 7, "mel": 3, "df": 2}


def test_shares_that_cannot_be_had_are_refused() -> None:
    table = metadata_of({dx: [1] * 10 + [2] * 10 for dx in CODES})
    with pytest.raises(LesionsError, match=r"val has \d+ photos instead of 63: 70"):
        split(table, CODES, 0.3, 0.3, "once-photographed", 0)


def test_too_few_photos_and_lesions_say_what_is_needed() -> None:
    table = metadata_of({"nv": [1, 1], "mel": [1, 1]})
    with pytest.raises(LesionsError, match=r"test_share 0\.1 of 4 photos is less than one photo"):
        split(table, CODES, 0.1, 0.1, "any-lesion", 0)
    with pytest.raises(LesionsError, match=r"3 are needed of each class, but mel, nv have fewer"):
        split(table, CODES, 0.5, 0.3, "any-lesion", 0)


@pytest.mark.parametrize(
    ("mel", "absent"),
    [
        ([1, 1], {"val": ["mel"]}),
        ([1], {"val": ["mel"], "test": ["mel"]}),
        ([2, 2, 2], {"val": ["mel"], "test": ["mel"]}),
    ],
)
def test_a_class_of_few_lesions_trains_first(mel: list[int], absent: dict[str, list[str]]) -> None:
    table = metadata_of({dx: mel if dx == "mel" else [1] * 20 for dx in CODES})
    subsets = split(table, CODES, 0.1, 0.1, "once-photographed", 0)
    assert absent_classes(subsets, CODES) == absent


def test_a_class_without_training_photos_is_refused() -> None:
    table = metadata_of({"nv": [1] * 9, "mel": [1] * 9})
    table["split"] = ["train", "val", "test"] * 3 + ["val", "test", "test"] * 3
    with pytest.raises(LesionsError, match="no photo of mel is left for training"):
        split(table, CODES, 0.1, 0.1, "given", 0)


def test_photos_that_are_left_out_move_no_other() -> None:
    table = metadata_of(dict.fromkeys(CODES, [1] * 20))
    subsets = split(table, CODES, 0.1, 0.1, "once-photographed", 0)
    ids = {subsets[name]["image_id"].iloc[0] for name in SUBSETS}
    kept = leave_out(subsets, ids)
    for name in SUBSETS:
        assert list(kept[name]["image_id"]) == list(subsets[name]["image_id"][1:])
        assert list(kept[name].index) == list(range(len(kept[name])))
    with pytest.raises(LesionsError, match=r"no photo is left for val\. Change .* or leave_out"):
        leave_out(subsets, set(subsets["val"]["image_id"]))
    melanomas = subsets["train"]["dx"] == "mel"
    with pytest.raises(LesionsError, match="no photo of mel is left for training"):
        leave_out(subsets, set(subsets["train"]["image_id"][melanomas]))
