"""People's folders: every layout gives the photos, their classes and their groups."""

import inspect
import sys
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import DATASET
from PIL import Image

from lesions.common.errors import LesionsError
from lesions.dataset.description import Description
from lesions.dataset.photos import file_name, image_id_of
from lesions.sources.files import walk
from lesions.sources.folders import as_metadata, read_folder

LETTERS = Description(title="Letters", classes=("a", "b", "c"), groups={}, watched=None)


def photo(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade % 256, shade // 256, 9)).save(path)


def table(path: Path, rows: list[tuple[Any, ...]], *columns: str) -> None:
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False)


def found(folder: Path, dataset: Description = LETTERS) -> pd.DataFrame:
    content = read_folder(folder, dataset.columns)
    metadata = as_metadata(content, dataset)
    assert set(metadata["image_id"]) <= set(content.files)
    return metadata


def test_a_folder_per_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("A/1.png", "B/1.png", "B/deep/2.tif", "c/x 1.jpg", ".hidden/z.png"):
        photo(tmp_path / "all" / name)
    rows = found(tmp_path)
    # Two photos are named 1: their folders are part of their ids.
    assert dict(zip(rows["image_id"], rows["dx"], strict=True)) == {
        "all/A/1": "a",
        "all/B/1": "b",
        "all/B/deep/2": "b",
        "all/c/x 1": "c",
    }
    assert (rows["lesion_id"] == rows["image_id"]).all()
    assert "names no lesions or patients" in capsys.readouterr().out


def test_folders_for_the_subsets(tmp_path: Path) -> None:
    for number, name in enumerate(("Train/a", "train/b", "Validation/a", "TEST/b")):
        photo(tmp_path / name / f"{number}.png")
    rows = found(tmp_path).set_index("image_id")
    assert list(rows["split"]) == ["train", "train", "val", "test"]
    assert list(rows["dx"]) == ["a", "b", "a", "b"]


def test_a_table_with_names_of_its_own(tmp_path: Path) -> None:
    for name in ("p/0001.png", "p/ward 3.1.png", "p/u.png"):
        photo(tmp_path / name)
    rows = [("0001.png", "A", "x"), ("p/ward 3.1.png", "b", "y"), ("u", "", "y")]
    table(tmp_path / "my.csv", rows, "Filename", "Diagnosis", "Patient")
    metadata = found(tmp_path)
    assert metadata.to_dict("list") == {
        "image_id": ["0001", "ward 3.1"],
        "dx": ["a", "b"],
        "patient_id": ["x", "y"],
        "lesion_id": ["0001", "ward 3.1"],
    }
    # Another column, by the description.
    table(tmp_path / "my.csv", [("0001", "A", "c")], "Filename", "Diagnosis", "grade")
    by_grade = LETTERS.model_copy(update={"columns": {"label": "grade"}})
    assert list(found(tmp_path, by_grade)["dx"]) == ["c"]


def test_paths_that_the_names_alone_do_not_tell_apart(tmp_path: Path) -> None:
    for name in ("x/1.png", "y/1.png"):
        photo(tmp_path / "pictures" / name)
    rows = [("x/1.png", "a"), ("y\\1.png", "b")]
    table(tmp_path / "labels.csv", rows, "file_name", "label")
    assert list(found(tmp_path)["image_id"]) == ["x/1", "y/1"]


def test_the_labels_of_folders_are_merged_with_a_table(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        photo(tmp_path / name)
    table(tmp_path / "metadata.csv", [("1", "P"), ("2", "P")], "image_id", "patient_id")
    metadata = found(tmp_path)
    assert list(metadata["dx"]) == ["a", "b"]
    assert list(metadata["patient_id"]) == ["P", "P"]


EIGHT = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")


@pytest.fixture
def isic2019(tmp_path: Path) -> Path:
    """Nine photos, one of each class, in the files of that challenge; the last is UNK."""
    for number in range(9):
        photo(tmp_path / "ISIC_2019_Training_Input" / f"ISIC_{number}.jpg", number)
    truth = [(f"ISIC_{k}", *(float(k == n) for n in range(9)), 1.0) for k in range(9)]
    table(tmp_path / "ISIC_2019_Training_GroundTruth.csv", truth, "image", *EIGHT, "score_weight")
    rows = [(f"ISIC_{k}", "55.0", "head/neck", "L0" if k < 2 else "", "male") for k in range(9)]
    names = ("image", "age_approx", "anatom_site_general", "lesion_id", "sex")
    table(tmp_path / "ISIC_2019_Training_Metadata.csv", rows, *names)
    return tmp_path


def test_isic_2019_as_it_is_downloaded(isic2019: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eight = Description(
        title="ISIC 2019",
        classes=tuple(code.lower() for code in EIGHT[:8]),
        groups={},
        watched=None,
        left_out=("UNK",),
    )
    metadata = found(isic2019, eight)
    assert list(metadata["dx"]) == list(eight.classes)
    assert list(metadata["lesion_id"]) == ["L0", "L0", *(f"ISIC_{k}" for k in range(2, 8))]
    assert {"age", "localization", "sex"} <= set(metadata)
    printed = capsys.readouterr().out
    assert "left out 1 photos whose class is UNK" in printed
    assert "6 photos have no lesion_id: each counts as one of its own" in printed


def test_unknown_classes_are_named_with_the_remedy(isic2019: Path) -> None:
    with pytest.raises(LesionsError, match=r"'AK' \(1 photos\).*`lesions new FOLDER`"):
        found(isic2019, DATASET)


def test_the_archives_export_says_which_diagnosis_is_taken(tmp_path: Path) -> None:
    rows = [("I1", "Benign", "Nevus", "L1"), ("I2", "Malignant", "Melanoma", "L2")]
    table(tmp_path / "metadata.csv", rows, "isic_id", "diagnosis_1", "diagnosis_3", "lesion_id")
    for name, *_ in rows:
        photo(tmp_path / f"{name}.jpg")
    content = read_folder(tmp_path, {})
    assert list(content.table["dx"]) == ["Benign", "Malignant"]
    assert content.notes == [
        "classes: the 2 values of the column diagnosis_1; others are diagnosis_3 (2), which "
        "`columns: {label: diagnosis_3}` would take"
    ]
    assert list(read_folder(tmp_path, {"label": "diagnosis_3"}).table["dx"])[1] == "Melanoma"


def test_zip_files_are_folders_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        photo(tmp_path / "loose" / f"{name}.png")
        with zipfile.ZipFile(tmp_path / "photos.zip", "a") as archive:
            archive.write(tmp_path / "loose" / f"{name}.png", f"{name}/photo {name}.png")
            archive.writestr(f"__MACOSX/{name}/._photo {name}.png", "resource fork")
        (tmp_path / "loose" / f"{name}.png").unlink()
    assert dict(found(tmp_path)[["image_id", "dx"]].to_numpy()) == {"photo a": "a", "photo b": "b"}


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([("1", "a"), ("gone", "b")], ("image", "label"), "the first is gone"),
        ([("1", "a"), ("1", "b")], ("image", "label"), "a second 1"),
        ([("1", 9)], ("image", "size"), "no column names the class of a photo"),
        ([("1", "a", "unknown"), ("2", "b", "unknown")], ("image", "dx", "patient"), "leave the"),
    ],
)
def test_what_is_not_clear_is_refused(
    tmp_path: Path, rows: list[tuple[Any, ...]], columns: tuple[str, ...], words: str
) -> None:
    photo(tmp_path / "1.png")
    photo(tmp_path / "2.png")
    table(tmp_path / "t.csv", rows, *columns)
    with pytest.raises(LesionsError, match=words):
        found(tmp_path)


def test_two_tables_of_classes_and_tables_that_differ_are_refused(tmp_path: Path) -> None:
    photo(tmp_path / "1.png")
    table(tmp_path / "a.csv", [("1", "a")], "image", "label")
    table(tmp_path / "b.csv", [("1", "b")], "image", "dx")
    with pytest.raises(LesionsError, match="several tables name the classes"):
        found(tmp_path)
    table(tmp_path / "a.csv", [("1", "a", "x")], "image", "label", "patient")
    table(tmp_path / "b.csv", [("1", "y")], "image", "patient_id")
    with pytest.raises(LesionsError, match="differ in patient_id of 1"):
        found(tmp_path)


@pytest.mark.parametrize("image_id", ["0001", "a/b: c", "100 %2F", "été.1", 'a?*<b>|"c'])
def test_file_names_give_back_the_id(image_id: str) -> None:
    name = file_name(image_id, ".jpg")
    assert not set(name) & set('\\/:*?"<>|')
    assert image_id_of(Path(name)) == image_id


def test_tables_may_name_the_photos_differently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "img/1.png")
    photo(tmp_path / "img/2.png")
    table(tmp_path / "truth.csv", [("img/1.png", "a"), ("img/2.png", "b")], "image", "label")
    table(tmp_path / "people.csv", [("1", "P"), ("2", "P"), ("3", "Q")], "isic_id", "patient_id")
    content = read_folder(tmp_path, {})
    assert list(content.table["patient_id"]) == ["P", "P"]
    expected = "not used: 1 of the 3 rows of people.csv, whose photos truth.csv does not name"
    assert expected in content.notes
    # What `lesions new` writes is read back in the same way.
    assert read_folder(tmp_path, content.columns).table.equals(content.table)


def test_all_tables_count_beside_a_metadata_csv(tmp_path: Path) -> None:
    photo(tmp_path / "x/1.png")
    photo(tmp_path / "y/2.png")
    table(tmp_path / "metadata.csv", [("1", 50), ("2", 60)], "image_id", "age")
    table(tmp_path / "labels.csv", [("1", "a"), ("2", "b")], "image_id", "label")
    table(tmp_path / "patients.csv", [("1", "P"), ("2", "Q")], "image_id", "patient")
    rows = found(tmp_path)
    assert rows[["dx", "patient_id", "age"]].to_numpy().tolist() == [
        ["a", "P", "50"],
        ["b", "Q", "60"],
    ]
    # Another table with classes, as that of a challenge beside HAM10000's, does not.
    table(tmp_path / "metadata.csv", [("1", "a"), ("2", "b")], "image_id", "dx")
    content = read_folder(tmp_path, {})
    assert list(content.table["dx"]) == ["a", "b"]
    assert any("labels.csv, as another table names the classes" in note for note in content.notes)


def test_a_lesion_stays_with_its_patient(tmp_path: Path) -> None:
    for number in range(3):
        photo(tmp_path / f"{number}.png")
    names = ("image", "label", "lesion_id", "patient_id")
    rows = [(0, "a", "L", "P"), (1, "a", "L", ""), (2, "b", "", "")]
    table(tmp_path / "t.csv", rows, *names)
    assert list(found(tmp_path)["patient_id"]) == ["P", "P", "2"]
    table(tmp_path / "t.csv", [*rows[:1], (1, "a", "L", "Q"), rows[2]], *names)
    with pytest.raises(LesionsError, match="lesion_id L of patient_id P and of another in row 2"):
        found(tmp_path)


def test_the_photo_that_a_path_names_is_taken(tmp_path: Path) -> None:
    for shade, name in enumerate(("c1/image.png", "c1/image.bmp", "c2/image.png", "mask/m.png")):
        photo(tmp_path / name, shade)
    table(tmp_path / "t.csv", [("c1/image.png", "a"), ("c2/image.png", "b")], "image", "label")
    content = read_folder(tmp_path, {})
    assert [Path(content.files[name].place) for name in content.table["image_id"]] == [
        tmp_path / "c1/image.png",
        tmp_path / "c2/image.png",
    ]
    assert any(note.startswith("left out 2 photos that t.csv") for note in content.notes)
    # Two photos that agree with the path equally well.
    photo(tmp_path / "2019/c1/image.png", 7)
    with pytest.raises(LesionsError, match="have one name but different content"):
        read_folder(tmp_path, {})


def test_tables_of_subsets_are_stacked(tmp_path: Path) -> None:
    for name in ("train/1.png", "train/2.png", "test/1.png"):
        photo(tmp_path / name)
    rows = [("1.png", "a"), ("2.png", "b")]
    for name, count in (("train", 2), ("test", 1)):
        table(tmp_path / name / "metadata.csv", rows[:count], "file_name", "label")
    expected = [["test/1", "a", "test"], ["train/1", "a", "train"], ["train/2", "b", "train"]]
    assert found(tmp_path)[["image_id", "dx", "split"]].to_numpy().tolist() == expected


def test_folders_of_which_only_some_are_subsets_are_refused(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "test/3.png"):
        photo(tmp_path / name)
    with pytest.raises(LesionsError, match=r"test/3\.png is not\. Either every photo is"):
        found(tmp_path)


def test_classes_may_be_called_0_and_1(tmp_path: Path) -> None:
    for name in ("0/p1/1.png", "1/p2/2.png"):
        photo(tmp_path / name)
    content = read_folder(tmp_path, {})
    assert list(content.table["dx"]) == ["0", "1"]
    assert "split" not in content.table


def test_columns_of_0_and_1_that_are_no_classes(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        photo(tmp_path / name)
    table(tmp_path / "t.csv", [("1", 0, 1), ("2", 1, 0)], "image", "male", "female")
    assert list(read_folder(tmp_path, {}).table["dx"]) == ["a", "b"]
    rows = [(7, "1", "True", "False", "False", 3), (8, "2", "False", "True", "False", 1)]
    names = ("Unnamed: 0", "image", "MEL", "NV", "BCC", "hairs")
    table(tmp_path / "t.csv", rows, *names)
    assert list(read_folder(tmp_path, {}).table["dx"]) == ["MEL", "NV"]
    # A column that the dataset's file names as another role is not also the site.
    table(tmp_path / "t.csv", [("1", "x", "arm"), ("2", "y", "leg")], "image", "dx", "site")
    assert list(read_folder(tmp_path, {"label": "site"}).table["dx"]) == ["arm", "leg"]


def test_the_columns_of_pad_ufes_and_bcn20000_are_known(tmp_path: Path) -> None:
    photo(tmp_path / "PAT_1_2_3.png")
    photo(tmp_path / "PAT_4_5_6.png")
    rows = [("1", "2", "PAT_1_2_3.png", "A", "FEMALE"), ("4", "5", "PAT_4_5_6.png", "B", "")]
    columns = ("patient_id", "lesion_id", "img_id", "diagnostic", "gender")
    table(tmp_path / "metadata.csv", rows, *columns)
    metadata = found(tmp_path)
    assert list(metadata["image_id"]) == ["PAT_1_2_3", "PAT_4_5_6"]
    assert list(metadata["dx"]) == ["a", "b"]
    assert list(metadata["patient_id"]) == ["1", "4"]
    table(tmp_path / "metadata.csv", [row[2:4] for row in rows], "bcn_filename", "diagnosis")
    assert list(found(tmp_path)["dx"]) == ["a", "b"]


def test_a_folder_without_photos_says_what_it_has(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm", "notes"):
        (tmp_path / name).touch()
    with pytest.raises(LesionsError, match=r"it has 2 of \.dcm, 1 of no ending"):
        found(tmp_path)


def test_a_zip_file_with_a_password_is_not_called_damaged(tmp_path: Path) -> None:
    file = tmp_path / "photos.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/1.png", b"secret")
    content = file.read_bytes()
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.index(header) + flags
        content = content[:start] + b"\x01\x00" + content[start + 2 :]
    file.write_bytes(content)
    with pytest.raises(LesionsError, match=r"photos\.zip: is encrypted\. Unpack it"):
        found(tmp_path)


def test_folders_may_be_deeper_than_python_may_recurse(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 300)
    photo(deep / "1.png")
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        assert list(walk(tmp_path)) == [deep / "1.png"]
    finally:
        sys.setrecursionlimit(before)


def test_what_file_managers_leave_is_no_photo(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._1.png", ".hidden.png"):
        (tmp_path / name).write_bytes(b"other")
    photo(tmp_path / "1.png")
    assert list(walk(tmp_path)) == [tmp_path / "1.png"]


def test_a_folder_that_cannot_be_read_is_named_or_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        photo(tmp_path / name / "1.png")
    listed = Path.iterdir

    def locked(folder: Path) -> Any:
        if folder.name == "a":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", locked)
    errors: list[OSError] = []
    assert list(walk(tmp_path, errors.append)) == [tmp_path / "b/1.png"]
    assert [error.filename for error in errors] == [str(tmp_path / "a")]
    with pytest.raises(PermissionError, match="Permission denied"):
        found(tmp_path)
