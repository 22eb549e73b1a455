from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from helpers import CODES, ROOT, metadata_of

from lesions.common.errors import LesionsError
from lesions.dataset.metadata import (
    ids_to_leave_out,
    join_groups,
    pairs_in,
    read_metadata,
    read_pairs,
)


@pytest.fixture
def table() -> pd.DataFrame:
    return metadata_of({"mel": [2, 1], "nv": [1, 1]})


def write(folder: Path, table: pd.DataFrame) -> Path:
    path = folder / "HAM10000_metadata.csv"
    table.to_csv(path, index=False)
    return path


def test_text_stays_text_and_rows_are_sorted(tmp_path: Path, table: pd.DataFrame) -> None:
    table.loc[0, "age"] = ""
    read = read_metadata(write(tmp_path, table.sample(frac=1, random_state=0)), CODES)
    pd.testing.assert_frame_equal(read, table.sort_values("image_id", ignore_index=True))


def test_ids_may_have_spaces_dots_colons_and_be_numbers(tmp_path: Path) -> None:
    table = metadata_of({"nv": [1, 1, 1]})
    table["image_id"] = ["0001", "ward 3: a.b", "été (2)"]
    assert list(read_metadata(write(tmp_path, table), CODES)["image_id"]) == list(table["image_id"])


def test_only_the_pairs_whose_photos_are_there_count(
    tmp_path: Path, table: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pairs.csv"
    rows = "P_mel_0_0,P_nv_0_0\nP_mel_0_0,P_nv_00\nother,another\n"
    file.write_text(f"image_id,same_lesion_as\n{rows}")
    assert pairs_in(table, file) == [("P_mel_0_0", "P_nv_0_0")]
    printed = capsys.readouterr().out
    assert "1 of the 3 listed pairs of photos of one lesion are here" in printed
    # Perhaps a typing error; the third pair is of other photos.
    assert "P_mel_0_0 and P_nv_00 are not joined, because photo P_nv_00 is missing" in printed
    assert "another" not in printed


def test_dataverse_tab_file(tmp_path: Path, table: pd.DataFrame) -> None:
    path = tmp_path / "HAM10000_metadata.tab"
    table.to_csv(path, index=False, sep="\t", quoting=1)
    assert list(read_metadata(path, CODES)["image_id"]) == sorted(table["image_id"])


def broken(table: pd.DataFrame, fault: str) -> pd.DataFrame:
    if fault == "column":
        return table.drop(columns="dx")
    if fault == "twice":
        return pd.concat([table, table.iloc[:1]])
    column, value = {
        "dx": ("dx", "wart"),
        "path": ("image_id", "=escape"),
        "lesion": ("lesion_id", ""),
    }[fault]
    table.loc[1, column] = value
    return table


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("column", ["lacks the column dx", "lesion_id"]),
        ("twice", ["a second P_mel_0_0", "one row per photo"]),
        ("dx", ["'wart'", "P_mel_0_1", "akiec"]),
        ("path", ["'=escape'", "row 3"]),
        ("lesion", ["empty lesion_id", "row 3"]),
    ],
)
def test_faults_are_named(
    tmp_path: Path, table: pd.DataFrame, fault: str, words: list[str]
) -> None:
    path = write(tmp_path, broken(table, fault))
    with pytest.raises(LesionsError) as error:
        read_metadata(path, CODES)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_comma_too_many_is_refused(tmp_path: Path, table: pd.DataFrame) -> None:
    path = write(tmp_path, table)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{row},x" for row in rows)]))
    with pytest.raises(LesionsError, match="not a readable table"):
        read_metadata(path, CODES)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"', b"lesion_id,image_id\n"])
def test_files_that_are_no_table(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes(content)
    with pytest.raises(LesionsError, match=r"metadata\.csv"):
        read_metadata(path, CODES)


def test_invisible_characters_are_removed_and_counted(
    tmp_path: Path, table: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    dirty = table.copy()
    dirty.loc[1, "lesion_id"] = f"{table['lesion_id'][1]} "
    dirty.loc[2, "image_id"] = f"\ufeff{table['image_id'][2]}\u200b\xa0"
    read = read_metadata(write(tmp_path, dirty), CODES)
    pd.testing.assert_frame_equal(read, table.sort_values("image_id", ignore_index=True))
    assert (
        "removed spaces or invisible characters around values in 2 rows" in capsys.readouterr().out
    )


def test_empty_rows_at_the_end_are_left_out_and_counted(
    tmp_path: Path, table: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, table)
    path.write_text(path.read_text() + ",,,,,,\n" * 3)
    assert len(read_metadata(path, CODES)) == len(table)
    assert "left out 3 empty rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "column", "value", "words"),
    [
        ([0], "lesion_id", "l_mel_1", "differs from it only in case"),
        ([0], "image_id", "p_mel_0_1", "differs from it only in case"),
        ([0, 2], "lesion_id", "unknown", "give every lesion its own id"),
        ([0, 2], "lesion_id", "NaN", "give every lesion its own id"),
        ([0], "lesion_id", "=1+1", "printable characters are allowed"),
        ([0], "image_id", "a\u202eb", "printable characters are allowed"),
        ([0], "sex", "</script><script>", "letters, digits and"),
        ([0], "localization", "\x1b[31mback", "letters, digits and"),
        ([0], "localization", "+SUM(1+1)", "+ and - not at the start"),
        ([0], "sex", "-1+2", "+ and - not at the start"),
        ([0], "age", "old", "years from 0 to 120"),
        ([0], "age", "-5", "years from 0 to 120"),
    ],
)
def test_doubtful_values_are_refused_with_their_row(
    tmp_path: Path, table: pd.DataFrame, rows: list[int], column: str, value: str, words: str
) -> None:
    table.loc[rows, column] = value
    with pytest.raises(LesionsError, match=r"in row \d+ \(\d+ rows in all\)") as error:
        read_metadata(write(tmp_path, table), CODES)
    assert words in str(error.value)


def test_a_value_of_50_mb_is_not_printed_whole(tmp_path: Path, table: pd.DataFrame) -> None:
    table.loc[0, "image_id"] = "x" * 1_000
    with pytest.raises(LesionsError, match="x…") as error:
        read_metadata(write(tmp_path, table), CODES)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("encoding", "separator"), [("utf-16", ","), ("latin-1", ","), ("utf-8", ";")]
)
def test_a_spreadsheets_own_forms_say_how_to_save(
    tmp_path: Path, table: pd.DataFrame, encoding: str, separator: str
) -> None:
    table.loc[0, "localization"] = "Rücken"
    path = tmp_path / "metadata.csv"
    table.to_csv(path, index=False, encoding=encoding, sep=separator)
    with pytest.raises(LesionsError, match="save the table as CSV, UTF-8, separated by commas"):
        read_metadata(path, CODES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # A quote that is opened in one row and closed in a later one.
        (lambda t: t.replace("back", '"5', 1).replace("back", '5"', 1), "a line end in a value"),
        (lambda text: text + f"L9,I9,nv,{'x' * 200_000},50,male,back\n", "field larger than"),
        (lambda text: text + "L9,I9,nv\n", "3 values in row 7; 7 are expected"),
        (lambda text: text.replace(",age,", ",dx,", 1), "has the column dx more than once"),
        (lambda text: text.replace("back", '"ba\nck"', 1), "a line end in a value in row 2"),
    ],
)
def test_rows_that_are_torn_or_swallowed_are_refused(
    tmp_path: Path, table: pd.DataFrame, change: Callable[[str], str], words: str
) -> None:
    path = write(tmp_path, table)
    path.write_text(change(path.read_text()))
    with pytest.raises(LesionsError, match=words):
        read_metadata(path, CODES)


def test_spaces_in_the_header_do_not_matter(tmp_path: Path, table: pd.DataFrame) -> None:
    path = write(tmp_path, table)
    path.write_text(path.read_text().replace(",image_id", ", image_id "))
    assert list(read_metadata(path, CODES).columns) == list(table.columns)


def test_other_columns_are_not_read(tmp_path: Path, table: pd.DataFrame) -> None:
    wide = pd.concat([table, pd.DataFrame("x", table.index, [f"c{k}" for k in range(500)])], axis=1)
    assert list(read_metadata(write(tmp_path, wide), CODES).columns) == list(table.columns)
    path = write(tmp_path, table)
    path.write_text(",".join(f"c{k}" for k in range(100_000)) + "\n")
    with pytest.raises(LesionsError, match="100,000 columns; at most 1000 are allowed"):
        read_metadata(path, CODES)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match="not found"):
        read_metadata(tmp_path / "metadata.csv", CODES)


def test_duplicate_pairs_become_one_lesion() -> None:
    pairs = read_pairs(ROOT / "datasets/ham10000_same_lesion.csv")
    first, second = pairs[0]
    table = pd.DataFrame(
        {
            "image_id": [first, "other", second, "second view", "lonely"],
            "lesion_id": ["B", "C", "A", "A", pairs[1][0]],
        }
    )
    assert list(join_groups(table, pairs)["lesion_id"])[:4] == ["A", "C", "A", "A"]
    assert len(pairs) == 71


def test_pairs_are_cleaned_and_other_columns_ignored(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("points,image_id,same_lesion_as\n31, b ,a\n,,\n9,c,d\n8,a,b\n")
    assert read_pairs(file) == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize("row", ["a,a", "a,", ",b"])
def test_pairs_that_are_none_are_refused(tmp_path: Path, row: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(f"image_id,same_lesion_as\na,b\n{row}\n")
    with pytest.raises(LesionsError, match=r"row 3 is .* two photos are expected"):
        read_pairs(file)


def test_a_table_of_pairs_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match=r"same_lesion: .*pairs.csv: not found"):
        read_pairs(tmp_path / "pairs.csv")


def test_pairs_need_their_columns(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("first,second\na,b\n")
    with pytest.raises(LesionsError, match="lacks the column image_id, same_lesion_as"):
        read_pairs(file)


def test_a_list_of_photos_to_leave_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"image_id": ["a", "b", "c"]})
    file = tmp_path / "doubtful.csv"
    file.write_text("image_id,why\n b ,blurred\nx,elsewhere\n")
    assert ids_to_leave_out(table, file) == {"b"}
    assert "1 of the 2 photos to leave out are here" in capsys.readouterr().out
    assert ids_to_leave_out(table, ROOT / "datasets/leave_out.csv") == set()
    assert capsys.readouterr().out == ""
    file.write_text("photo\nb\n")
    with pytest.raises(LesionsError, match="lacks the column image_id"):
        ids_to_leave_out(table, file)
    with pytest.raises(LesionsError, match=r"leave_out: .*no\.csv: not found"):
        ids_to_leave_out(table, tmp_path / "no.csv")
