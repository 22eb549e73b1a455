import io
import shutil
import zipfile
from pathlib import Path

import pytest

from lesions.errors import LesionsError
from lesions.metadata import read_metadata
from lesions.sources import fetch


@pytest.fixture
def kaggle(raw: Path, tmp_path: Path) -> Path:
    """The drawn photos as Kaggle lays HAM10000 out: two folders, and both again in lower case."""
    folder = tmp_path / "kaggle"
    photos = sorted((raw / "images").iterdir())
    for prefix in ("HAM10000", "ham10000"):
        for part, half in enumerate((photos[::2], photos[1::2]), start=1):
            target = folder / f"{prefix}_images_part_{part}"
            target.mkdir(parents=True)
            for photo in half:
                shutil.copy(photo, target)
    shutil.copy(raw / "metadata.csv", folder / "HAM10000_metadata.csv")
    return folder


@pytest.fixture
def dataverse(kaggle: Path, tmp_path: Path) -> Path:
    """The same as Dataverse gives it: two zips beside the metadata."""
    folder = tmp_path / "dataverse"
    folder.mkdir()
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for photo in sorted((kaggle / part).iterdir()):
                archive.write(photo, photo.name)
    shutil.copy(kaggle / "HAM10000_metadata.csv", folder / "HAM10000_metadata")
    return folder


def fetched(source: Path | str, target: Path) -> dict[str, bytes]:
    target.mkdir()
    fetch(str(source), 0, target)
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file()
    }


def test_both_layouts_give_the_same_photos_and_rows(
    raw: Path, kaggle: Path, dataverse: Path, tmp_path: Path
) -> None:
    expected = {
        str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()
    }
    assert fetched(kaggle, tmp_path / "a") == expected
    assert fetched(dataverse, tmp_path / "b") == expected
    assert sorted(path.suffix for path in dataverse.iterdir()) == ["", ".zip", ".zip"]


def test_photos_that_metadata_does_not_name_are_left_out_and_told(
    kaggle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kaggle / "HAM10000_images_part_1" / "stranger.jpg").write_bytes(b"x")
    assert "images/stranger.jpg" not in fetched(kaggle, tmp_path / "out")
    assert "1 photos" in capsys.readouterr().out


def test_missing_photo(kaggle: Path, tmp_path: Path) -> None:
    image_id = read_metadata(kaggle / "HAM10000_metadata.csv")["image_id"][0]
    for path in list(kaggle.rglob(f"{image_id}.jpg")):
        path.unlink()
    with pytest.raises(LesionsError, match=rf"1 of the 28 photos.*missing, {image_id}\.jpg"):
        fetched(kaggle, tmp_path / "out")


def test_empty_photo(kaggle: Path, tmp_path: Path) -> None:
    image_id = read_metadata(kaggle / "HAM10000_metadata.csv")["image_id"][0]
    for path in list(kaggle.rglob(f"{image_id}.jpg")):
        path.write_bytes(b"")
    with pytest.raises(LesionsError, match=rf"{image_id}\.jpg is empty"):
        fetched(kaggle, tmp_path / "out")


def test_no_metadata(kaggle: Path, tmp_path: Path) -> None:
    (kaggle / "HAM10000_metadata.csv").unlink()
    with pytest.raises(LesionsError, match=r"no HAM10000_metadata\.csv"):
        fetched(kaggle, tmp_path / "out")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match=r"'nowhere' is no folder\. Allowed are sample"):
        fetched("nowhere", tmp_path / "out")


@pytest.mark.parametrize("source", ["dataverse", "kaggle"])
def test_network_sources_say_what_to_do(source: str, tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match="by hand"):
        fetched(source, tmp_path / "out")


def test_damaged_zip(dataverse: Path, tmp_path: Path) -> None:
    path = dataverse / "HAM10000_images_part_1.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LesionsError, match=r"part_1\.zip: not a whole zip"):
        fetched(dataverse, tmp_path / "out")


def test_damaged_member(dataverse: Path, tmp_path: Path) -> None:
    path = dataverse / "HAM10000_images_part_1.zip"
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(LesionsError, match=r"part_1\.zip: .*cannot be unpacked"):
        fetched(dataverse, tmp_path / "out")


def test_member_that_unpacks_to_too_much(dataverse: Path, tmp_path: Path) -> None:
    image_id = read_metadata(dataverse / "HAM10000_metadata")["image_id"][0]
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{image_id}.jpg", bytes(65_000_000))
    (dataverse / "zz.zip").write_bytes(bomb.getvalue())
    with pytest.raises(LesionsError, match="unpacks to more than"):
        fetched(dataverse, tmp_path / "out")
