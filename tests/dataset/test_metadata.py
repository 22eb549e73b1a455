from pathlib import Path

import pandas as pd
import pytest
from helpers import metadata_of

from lesions.common.errors import LesionsError
from lesions.dataset.metadata import DUPLICATE_PAIRS, join_duplicate_lesions, read_metadata


@pytest.fixture
def table() -> pd.DataFrame:
    return metadata_of({"mel": [2, 1], "nv": [1, 1]})


def write(folder: Path, table: pd.DataFrame) -> Path:
    path = folder / "HAM10000_metadata.csv"
    table.to_csv(path, index=False)
    return path


def test_text_stays_text_and_rows_are_sorted(tmp_path: Path, table: pd.DataFrame) -> None:
    table.loc[0, "age"] = ""
    read = read_metadata(write(tmp_path, table.sample(frac=1, random_state=0)))
    pd.testing.assert_frame_equal(read, table.sort_values("image_id", ignore_index=True))


def test_dataverse_tab_file(tmp_path: Path, table: pd.DataFrame) -> None:
    path = tmp_path / "HAM10000_metadata.tab"
    table.to_csv(path, index=False, sep="\t", quoting=1)
    assert list(read_metadata(path)["image_id"]) == sorted(table["image_id"])


def broken(table: pd.DataFrame, fault: str) -> pd.DataFrame:
    if fault == "column":
        return table.drop(columns="dx")
    if fault == "twice":
        return pd.concat([table, table.iloc[:1]])
    column, value = {
        "dx": ("dx", "wart"),
        "path": ("image_id", "../escape"),
        "lesion": ("lesion_id", ""),
    }[fault]
    table.loc[1, column] = value
    return table


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("column", ["lacks the column dx", "lesion_id"]),
        ("twice", ["P_mel_0_0", "is in more than one row"]),
        ("dx", ["'wart'", "P_mel_0_1", "akiec"]),
        ("path", ["'../escape'", "row 3"]),
        ("lesion", ["empty lesion_id", "row 3"]),
    ],
)
def test_faults_are_named(
    tmp_path: Path, table: pd.DataFrame, fault: str, words: list[str]
) -> None:
    path = write(tmp_path, broken(table, fault))
    with pytest.raises(LesionsError) as error:
        read_metadata(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_comma_too_many_is_refused(tmp_path: Path, table: pd.DataFrame) -> None:
    path = write(tmp_path, table)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{row}," for row in rows)]))
    with pytest.raises(LesionsError, match="not a readable table"):
        read_metadata(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"', b"lesion_id,image_id\n"])
def test_files_that_are_no_table(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes(content)
    with pytest.raises(LesionsError, match=r"metadata\.csv"):
        read_metadata(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match="not found"):
        read_metadata(tmp_path / "metadata.csv")


def test_duplicate_pairs_become_one_lesion() -> None:
    first, second = DUPLICATE_PAIRS[0]
    table = pd.DataFrame(
        {
            "image_id": [first, "other", second, "second view", "lonely"],
            "lesion_id": ["B", "C", "A", "A", DUPLICATE_PAIRS[1][0]],
        }
    )
    assert list(join_duplicate_lesions(table)["lesion_id"])[:4] == ["A", "C", "A", "A"]
    assert len(DUPLICATE_PAIRS) == 18
