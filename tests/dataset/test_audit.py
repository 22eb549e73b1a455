import copy

import numpy as np
import pandas as pd
import pytest
from helpers import CODES, metadata_of

from lesions.dataset.audit import audit, identical_photos, summary
from lesions.dataset.metadata import join_groups
from lesions.dataset.photos import PhotoArray
from lesions.dataset.splits import split


@pytest.fixture
def table() -> pd.DataFrame:
    return metadata_of({dx: [1] * 20 for dx in CODES})


def findings_of(table: pd.DataFrame, **changes: object) -> dict[str, str]:
    subsets = split(table, CODES, 0.1, 0.1, "any-lesion", 0)
    shares = {"val": 0.1, "test": 0.1, **changes.get("shares", {})}  # type: ignore[dict-item]
    found = audit(table, CODES, [], subsets, shares)
    return dict(zip(found["finding"], found["lesion_id"] + found["detail"], strict=True))


def test_a_clean_table_has_no_findings(table: pd.DataFrame) -> None:
    assert findings_of(table) == {}
    assert summary(audit(table, CODES, [], {}, {})) == "no findings"


def test_findings_by_hand(table: pd.DataFrame) -> None:
    table.loc[0:1, "lesion_id"] = "L1"
    table.loc[1, ["sex", "age"]] = "female", "80.0"
    table.loc[20:21, "lesion_id"] = "L2"
    table.loc[21, "dx"] = "mel"
    table.loc[40:46, "lesion_id"] = "L3"
    few = table[(table["dx"] != "df") | table["image_id"].str.fullmatch(r"P_df_[0-8]_0")]
    assert findings_of(few) == {
        "lesion with several sex": "L1female, male",
        "lesion with several ages": "L150.0–80.0",
        "lesion with several dx": "L2bcc, mel",
        "lesion with many photos": "L37",
        "class with few lesions": "df: 9",
    }
    assert "subset of another size" in findings_of(table, shares={"val": 0.5})


def test_identical_photos_are_found_and_stay_together(
    noise: PhotoArray, noise_table: pd.DataFrame
) -> None:
    table = noise_table.assign(lesion_id=noise_table["image_id"], age="", sex="")
    assert identical_photos(noise, table) == []
    photos = copy.copy(noise)  # other tests use the fixture too
    photos.images = np.array(noise.images)
    photos.images[[9, 20]] = noise.images[3]
    pairs = identical_photos(photos, table)
    assert pairs == [("P03", "P09"), ("P03", "P20")]
    joined = join_groups(table, pairs)
    assert set(joined["lesion_id"][[3, 9, 20]]) == {"P03"}
    found = audit(table, CODES, pairs, {}, {})
    assert list(found["finding"][:2]) == ["identical photos"] * 2
    assert summary(found).startswith("2 × identical photos")
