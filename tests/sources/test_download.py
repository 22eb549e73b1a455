import dataclasses
import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import kagglehub
import numpy as np
import pandas as pd
import pytest
from helpers import CODES, DATASET
from PIL import Image

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.dataset.description import Description
from lesions.dataset.metadata import read_metadata
from lesions.dataset.photos import PhotoArray, resize
from lesions.sources import sample, transfers
from lesions.sources.catalogue import HAM10000, ISIC2018
from lesions.sources.download import download
from lesions.sources.external_tests import find_external_test, leave_out_training_photos


@pytest.fixture
def kaggle(raw: Path, tmp_path: Path) -> Path:
    """The synthetic photos in Kaggle's layout: two folders, and both again in lower case."""
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
    """The same in Dataverse's layout: two zip files and the metadata."""
    folder = tmp_path / "dataverse"
    folder.mkdir()
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for photo in sorted((kaggle / part).iterdir()):
                archive.write(photo, photo.name)
    shutil.copy(kaggle / "HAM10000_metadata.csv", folder / "HAM10000_metadata")
    return folder


def downloaded(source: Path | str, target: Path) -> dict[str, bytes]:
    (target / "images").mkdir(parents=True)
    write_csv(target / "metadata.csv", download(str(source), 0, 1600, DATASET, target / "images"))
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
    assert downloaded(kaggle, tmp_path / "a") == expected
    assert downloaded(dataverse, tmp_path / "b") == expected
    assert sorted(path.suffix for path in dataverse.iterdir()) == ["", ".zip", ".zip"]


def test_photos_that_metadata_does_not_name_are_left_out_and_reported(
    kaggle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kaggle / "HAM10000_images_part_1" / "stranger.jpg").write_bytes(b"x")
    assert "images/stranger.jpg" not in downloaded(kaggle, tmp_path / "out")
    assert "left out 1 photos" in capsys.readouterr().out


def test_two_different_photos_of_one_name_are_refused(kaggle: Path, tmp_path: Path) -> None:
    masks = kaggle / "masks"
    masks.mkdir()
    photo = sorted((kaggle / "HAM10000_images_part_1").iterdir())[0]
    (masks / photo.name).write_bytes(b"a black mask")
    with pytest.raises(
        LesionsError, match=rf"part_1/{photo.name} and .*masks/{photo.name} have one"
    ):
        downloaded(kaggle, tmp_path / "out")
    # A photo that the metadata does not name does not matter.
    (masks / photo.name).rename(masks / "mask.jpg")
    assert len(downloaded(kaggle, tmp_path / "out2")) == 29


def test_what_people_have_is_found(raw: Path, tmp_path: Path) -> None:
    """Linked folders, a loop, other endings, a zip in capitals and below, macOS's own files."""
    folder, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    (folder / "deep").mkdir(parents=True)
    elsewhere.mkdir()
    photos = sorted((raw / "images").iterdir())
    for number, photo in enumerate(photos):
        data, name = photo.read_bytes(), photo.stem
        if number % 4 == 0:
            (elsewhere / f"{name}.JPE").write_bytes(data)
        elif number % 4 == 1:
            with Image.open(photo) as image:
                image.save(folder / f"{name}.png")
        elif number % 4 == 2:
            with zipfile.ZipFile(folder / "deep" / "PHOTOS.ZIP", "a") as archive:
                archive.writestr(f"x/{name}.jpeg", data)
                archive.writestr(f"__MACOSX/x/._{name}.jpeg", b"resource fork")
        else:
            (folder / "deep" / f"{name}.jfif").write_bytes(data)
            (folder / "deep" / f"._{name}.jfif").write_bytes(b"resource fork")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "deep" / "loop").symlink_to(folder)
    shutil.copy(raw / "metadata.csv", folder / "metadata.csv")
    found = downloaded(folder, tmp_path / "out")
    endings = [Path(name).suffix for name in found if name.startswith("images/")]
    assert (endings.count(".jpg"), endings.count(".png")) == (21, 7)


def test_two_tables_that_differ_are_refused(kaggle: Path, tmp_path: Path) -> None:
    table = (kaggle / "HAM10000_metadata.csv").read_text()
    (kaggle / "metadata.csv").write_text(table)
    assert len(downloaded(kaggle, tmp_path / "out")) == 29
    (kaggle / "metadata.csv").write_text(table + "\n")
    with pytest.raises(LesionsError, match=r"HAM10000_metadata.csv, metadata.csv differ"):
        downloaded(kaggle, tmp_path / "out2")


def test_missing_photo(kaggle: Path, tmp_path: Path) -> None:
    image_id = read_metadata(kaggle / "HAM10000_metadata.csv", CODES)["image_id"][0]
    for path in list(kaggle.rglob(f"{image_id}.jpg")):
        path.unlink()
    with pytest.raises(
        LesionsError, match=rf"1 of the 28 photos.*missing; the first is {image_id}\.jpg"
    ):
        downloaded(kaggle, tmp_path / "out")


def test_empty_photo(kaggle: Path, tmp_path: Path) -> None:
    image_id = read_metadata(kaggle / "HAM10000_metadata.csv", CODES)["image_id"][0]
    for path in list(kaggle.rglob(f"{image_id}.jpg")):
        path.write_bytes(b"")
    with pytest.raises(LesionsError, match=rf"{image_id}\.jpg: is empty"):
        downloaded(kaggle, tmp_path / "out")


def test_folders_that_are_no_classes_of_the_dataset_are_named(kaggle: Path, tmp_path: Path) -> None:
    (kaggle / "HAM10000_metadata.csv").unlink()
    with pytest.raises(LesionsError, match=r"the classes 'HAM10000_images_part_1' \(14 photos\)"):
        downloaded(kaggle, tmp_path / "out")


def test_the_sample_needs_its_classes(tmp_path: Path) -> None:
    animals = Description(title="Animals", classes=("cat", "dog"), groups={}, watched=None)
    with pytest.raises(LesionsError, match="Animals lacks akiec, bcc"):
        download("sample", 0, 1600, animals, tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match=r"'nowhere' is not a folder .* Allowed are sample"):
        downloaded("nowhere", tmp_path / "out")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The synthetic photos' counts instead of the published ones."""
    table = dataclasses.replace(HAM10000, photos=28, lesions=28, counts=dict.fromkeys(CODES, 4))
    monkeypatch.setattr("lesions.sources.download.HAM10000", table)


@pytest.mark.usefixtures("small")
def test_kaggle_is_downloaded_anonymously(
    kaggle: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}

    def fake(handle: str) -> str:
        seen.update(os.environ)
        assert handle == "kmader/skin-cancer-mnist-ham10000"
        return str(kaggle)

    monkeypatch.setattr(kagglehub, "dataset_download", fake)
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    got = downloaded("kaggle", tmp_path / "out")
    assert got["metadata.csv"] == (raw / "metadata.csv").read_bytes()
    assert len(got) == 29
    assert "KAGGLE_KEY" not in seen
    assert list(Path(seen["KAGGLE_CONFIG_DIR"]).glob("*")) == []
    assert os.environ["KAGGLE_KEY"] == "secret"


def test_kaggle_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: str) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    with pytest.raises(LesionsError, match=r"cannot be downloaded \(no network\)\. By hand"):
        downloaded("kaggle", tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"photos": 29}, "28 photos instead of 29"),
        ({"lesions": 27}, "28 lesions instead of 27"),
        ({"counts": {"mel": 5, "nv": 4}}, "4 mel instead of 5"),
    ],
)
def test_counts_of_published_data_are_checked(
    dataverse: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    words: str,
) -> None:
    table = dataclasses.replace(
        HAM10000, **{"photos": 28, "lesions": 28, "counts": None, **changes}
    )
    files = {path.name: path for path in dataverse.glob("*.zip")}
    files["HAM10000_metadata.csv"] = dataverse / "HAM10000_metadata"
    monkeypatch.setattr(transfers, "fetch", lambda _: files)
    (tmp_path / "out").mkdir()
    with pytest.raises(LesionsError, match=words):
        download("dataverse", 0, 1600, DATASET, tmp_path / "out", table)


def test_members_cannot_leave_the_folder(dataverse: Path, tmp_path: Path) -> None:
    photo = b"evil"
    with zipfile.ZipFile(dataverse / "zz.zip", "w") as archive:
        for name in ("../../escaped.jpg", "/absolute.jpg", "a/../../b.jpg"):
            archive.writestr(name, photo)
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    got = downloaded(dataverse, tmp_path / "out")
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "out").as_posix() for path in after - before} == set(got)
    assert len(got) == 29
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


TRUTH = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"


@pytest.fixture
def outside(raw: Path, tmp_path: Path) -> Path:
    """An external test set of two synthetic photos."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name, photo in zip(("b", "a"), sorted((raw / "images").iterdir()), strict=False):
        shutil.copy(photo, folder / f"{name}.jpg")
    (folder / "truth.csv").write_text(TRUTH + "b,1.0,0,0,0,0,0,0\na,0,0,0,0,0,0,1.0\n")
    return folder


def test_external_folder(outside: Path) -> None:
    table, photos = find_external_test(str(outside), DATASET)
    assert table.to_dict("list") == {
        "image_id": ["a", "b"],
        "lesion_id": ["a", "b"],
        "dx": ["vasc", "mel"],
    }
    assert [(photo.name, photo.read()) for photo in photos] == [
        (name, (outside / f"{name}.jpg").read_bytes()) for name in "ab"
    ]


def array_of(photos: dict[str, Image.Image], folder: Path, size: int = 64) -> PhotoArray:
    """Write an array of photos, as the stages resize and external do."""
    folder.mkdir()
    readers = []
    for name, photo in photos.items():
        file = io.BytesIO()
        photo.save(file, "PNG")
        readers.append((name, file.getvalue))
    resize(readers, size, folder / "images.npy")
    write_csv(folder / "image_ids.csv", pd.DataFrame({"image_id": list(photos)}))
    return PhotoArray(folder)


def test_photos_of_training_are_left_out_of_an_external_test_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mel, bcc, nv = (sample.render_photo(code, 0, 0, 0) for code in ("mel", "bcc", "nv"))
    again = io.BytesIO()
    mel.resize((mel.width // 2, mel.height // 2)).save(again, "JPEG", quality=70)
    # A photo saved again under another name, another photo, and one of a name that is known.
    outside = {"copy": Image.open(again), "other": bcc, "NV": nv}
    known = array_of({"mel": mel, "nv": nv, "akiec": Image.new("RGB", (64, 64))}, tmp_path / "a")
    table = pd.DataFrame({"image_id": list(outside)})

    def left(trained_on: list[str]) -> list[str]:
        ids = pd.Series(trained_on)
        return list(leave_out_training_photos(table, photos, ids, known)["image_id"])

    photos = array_of(outside, tmp_path / "b")
    assert left(["akiec"]) == ["copy", "other", "NV"]
    assert left(["akiec", "mel"]) == ["other", "NV"]
    assert "left out: 1 of 3 photos are training or validation photos, copy" in (
        capsys.readouterr().out
    )
    assert left(["akiec", "mel", "nv"]) == ["other"]
    table, photos = table[:1], array_of({"copy": mel}, tmp_path / "c")
    with pytest.raises(LesionsError, match=r"copy: 1 of 1 photos .* not an external test set"):
        left(["mel"])


def test_a_photo_of_the_same_name_need_not_be_the_same(tmp_path: Path) -> None:
    grey = np.full((64, 64, 3), 128.0)
    known = array_of({"clinic/P1": Image.fromarray(grey.astype(np.uint8))}, tmp_path / "a")
    # Both differ by more than a copy of any name may, and less than one of the same name.
    like = {"p1": grey + 6, "P2": grey + 6, "deep/P1": grey + 60}
    photos = {name: Image.fromarray(one.astype(np.uint8)) for name, one in like.items()}
    table = pd.DataFrame({"image_id": list(photos)})
    kept = leave_out_training_photos(
        table, array_of(photos, tmp_path / "b"), pd.Series(["clinic/P1"]), known
    )
    assert list(kept["image_id"]) == ["P2", "deep/P1"]


def test_external_isic2018_leaves_out_what_has_no_photo(
    outside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = outside / "truth.csv"
    truth.write_text(truth.read_text() + "ISIC_0035068,0,1,0,0,0,0,0\n")
    with zipfile.ZipFile(outside / "photos.zip", "w") as archive:
        for name in ("a.jpg", "b.jpg"):
            archive.write(outside / name, f"ISIC2018_Task3_Test_Input/{name}")
    files = {path.name: path for path in outside.iterdir() if path.suffix != ".jpg"}
    monkeypatch.setattr(transfers, "fetch", lambda _: files)
    small = dataclasses.replace(ISIC2018, photos=2)
    assert list(find_external_test("isic2018", DATASET, small)[0]["image_id"]) == ["a", "b"]
    assert "left out ISIC_0035068, which the table lists without a photo" in capsys.readouterr().out
    with pytest.raises(LesionsError, match="2 photos instead of 1511"):
        find_external_test("isic2018", DATASET)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,MEL\na,1\n", "no column names the class of a photo"),
        (TRUTH, "no rows"),
        (TRUTH + "a,1,0,0,0,0,0,0\n" * 2, "a second a"),
        (TRUTH + "a,1,1,0,0,0,0,0\n", "one 1 in every row; row 2 has not"),
        (TRUTH + "b,1,0,0,0,0,0,0\na,x,1,0,0,0,0,0\n", "one 1 in every row; row 3 has not"),
        (
            TRUTH + "b,1,0,0,0,0,0,0\n,,,,,,,\na,1,1,0,0,0,0,0\n",
            "one 1 in every row; row 4 has not",
        ),
        (
            TRUTH + "gone,1,0,0,0,0,0,0\n",
            r"1 of the 1 photos in the table .* the first is gone\.jpg",
        ),
    ],
)
def test_wrong_ground_truth(outside: Path, text: str, words: str) -> None:
    (outside / "truth.csv").write_text(text)
    with pytest.raises(LesionsError, match=words):
        find_external_test(str(outside), DATASET)


def test_external_folder_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(LesionsError, match="'nowhere' is not a folder, and not isic2018"):
        find_external_test("nowhere", DATASET)
    with pytest.raises(LesionsError, match="has no photos"):
        find_external_test(str(tmp_path), DATASET)


def test_damaged_zip(dataverse: Path, tmp_path: Path) -> None:
    path = dataverse / "HAM10000_images_part_1.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LesionsError, match=r"part_1\.zip: not a whole zip"):
        downloaded(dataverse, tmp_path / "out")


def test_damaged_member(dataverse: Path, tmp_path: Path) -> None:
    path = dataverse / "HAM10000_images_part_1.zip"
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(LesionsError, match=r"part_1\.zip: .*cannot be unpacked"):
        downloaded(dataverse, tmp_path / "out")


def test_member_that_unpacks_to_too_much(dataverse: Path, tmp_path: Path) -> None:
    path = dataverse / "HAM10000_images_part_1.zip"
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content[next(iter(content))] = bytes(65_000_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(LesionsError, match="unpacks to more than"):
        downloaded(dataverse, tmp_path / "out")
