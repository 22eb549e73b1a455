"""Duplicates: photos of one lesion are found under other ids, and the pairs fit `same_lesion`."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import CHROMIUM, card_of, copy_inputs, invoke, network_of, serious_findings
from PIL import Image
from playwright.sync_api import Browser

pytest.importorskip("cv2", reason="the extra `duplicates` is not installed")

from lesions.curation.duplicates import (
    LONGEST,
    LocalFeatures,
    agreeing_points,
    local_features,
    most_similar,
)
from lesions.dataset.metadata import read_pairs
from lesions.networks import model_file
from lesions.sources.sample import COLUMNS, render_photo


def features_of(dx: str, lesion: int, view: int) -> LocalFeatures:
    photo = render_photo(dx, 0, lesion, view)
    return local_features(np.array(photo.resize((LONGEST, 3 * LONGEST // 4))))


def keypoints(points: np.ndarray) -> LocalFeatures:
    descriptors = np.random.default_rng(0).integers(0, 255, (len(points), 128))
    return LocalFeatures(points.astype(np.float32), descriptors.astype(np.uint8))


@pytest.mark.parametrize("dx", ["mel", "bcc"])
def test_two_photos_of_a_lesion_agree_and_those_of_two_lesions_do_not(dx: str) -> None:
    # The second photo is turned, shifted and scaled, and has other light and hairs.
    photo = features_of(dx, 1, 0)
    assert agreeing_points(photo, features_of(dx, 1, 1)) > 40
    assert agreeing_points(photo, features_of(dx, 2, 0)) < 9


def test_points_along_a_line_do_not_count() -> None:
    rng = np.random.default_rng(1)
    area = rng.uniform(0, 200, (20, 2))
    assert agreeing_points(keypoints(area), keypoints(1.5 * area + 7)) == 20
    line = area * (1, 0.02)  # such as the marks of a scale, or a hair
    assert agreeing_points(keypoints(line), keypoints(1.5 * line + 7)) == 0


def test_a_scale_that_no_two_photos_have_does_not_count() -> None:
    area = np.random.default_rng(1).uniform(0, 200, (20, 2))
    assert agreeing_points(keypoints(area), keypoints(3 * area)) == 0
    assert agreeing_points(keypoints(area), keypoints(area[:0])) == 0


def test_the_most_similar_photos_are_those_with_the_nearest_features() -> None:
    # Without the standardisation, 0 and 2 would have the same direction.
    features = np.array([[1, 0.9], [1, 1], [2, 1.8], [2, 2]], np.float32)
    assert most_similar(features, 1) == [(0, 1), (2, 3)]
    assert most_similar(features, 100) == [(a, b) for a in range(4) for b in range(a + 1, 4)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and photos of two lesions under five ids: A and B of one lesion_id."""
    folder = tmp_path_factory.mktemp("duplicates")
    card, state = card_of(image_size=64), network_of("mobilenetv2").state_dict()
    subspace = np.zeros((1, 1280), np.float32)
    model_file.save(folder / "model.safetensors", state, subspace, card)
    copy_inputs(folder)
    photos = folder / "photos"
    photos.mkdir()
    for name, lesion, view in (("A", 1, 0), ("B", 1, 1), ("C", 1, 2), ("D", 2, 0), ("E", 2, 1)):
        render_photo("mel", 0, lesion, view).resize((200, 150)).save(photos / f"{name}.png")
    return folder


def search(place: Path, *arguments: str, photos: str = "photos") -> tuple[int, str, str]:
    command = ("duplicates", photos, "--model", "model.safetensors")
    result = invoke(None, *command, *arguments, folder=place)
    return result.returncode, result.stdout, result.stderr


def test_pairs_are_listed_and_written_for_the_split(place: Path, tmp_path: Path) -> None:
    csv, sheet = tmp_path / "pairs.csv", tmp_path / "pairs.html"
    status, output, errors = search(place, "--csv", str(csv), "--sheet", str(sheet))
    assert status == 0, errors
    found = {frozenset(pair) for pair in read_pairs(csv)}
    assert found == {frozenset(pair) for pair in ("AB", "AC", "BC", "DE")}
    points = pd.read_csv(csv)["points"].tolist()
    assert points == sorted(points, reverse=True)
    assert "5 photos: 4 pairs agree in 9 points or more (800.0 per 1,000 photos)" in output
    page = sheet.read_text()
    assert page.count("<figure>") == 8
    assert f"same_lesion={csv}" in page
    # Both may be written again, until somebody has deleted pairs from the table.
    assert search(place, "--csv", str(csv), "--sheet", str(sheet))[0] == 0
    csv.write_text("".join(csv.read_text().splitlines(keepends=True)[:-1]))
    status, _, errors = search(place, "--csv", str(csv))
    assert status == 1
    assert "pairs.csv: exists, and is not a file that this project has written, or was" in errors
    (tmp_path / "link.html").symlink_to(csv)
    _, _, errors = search(place, "--csv", str(csv), "--sheet", str(tmp_path / "link.html"))
    assert "pairs.csv: exists" in errors
    csv.unlink()
    _, _, errors = search(place, "--csv", str(csv), "--sheet", str(tmp_path / "link.html"))
    assert "is the file of the pairs and of the page" in errors


def test_with_a_metadata_table_only_other_lesions_are_listed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(place / "photos")
    lesions = {"A": "one", "B": "one", "C": "two", "D": "three", "E": "four"}
    rows = [
        (lesion, name, "mel", "histo", "50", "male", "back") for name, lesion in lesions.items()
    ]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(tmp_path / "metadata.csv", index=False)
    _, output, _ = search(place, photos=str(tmp_path))
    pairs = {frozenset(line.split()[:2]) for line in output.splitlines()[:-1]}
    assert pairs == {frozenset(pair) for pair in ("AC", "BC", "DE")}
    assert "3 pairs of different lesions agree" in output
    assert "so do 1 of the 1 pairs of one lesion (100%)" in output


def test_a_damaged_photo_is_reported_and_the_rest_compared(place: Path, tmp_path: Path) -> None:
    for name in "DE":
        (tmp_path / f"{name}.png").symlink_to(place / f"photos/{name}.png")
    (tmp_path / "bad.jpg").write_text("hello")
    (tmp_path / "phone.heic").write_text("hello")
    status, output, errors = search(place, photos=str(tmp_path))
    assert status == 1
    assert output.startswith("D  E  ")
    assert "bad.jpg: not a photo" in errors
    assert "left out 1 other file, not photos: phone.heic" in errors
    assert "1 input could not be read; the rest are compared" in errors


def test_of_photos_with_one_name_copies_are_left_out(place: Path, tmp_path: Path) -> None:
    for name, target in (("x/A.png", "D"), ("y/A.png", "E"), ("z/A.png", "D"), ("z/=B.png", "D")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(place / f"photos/{target}.png")
    _, output, errors = search(place, photos=str(tmp_path))
    pairs = {frozenset(line.split()[:2]) for line in output.splitlines()[:-1]}
    first, second = f"{tmp_path}/x/A.png", f"{tmp_path}/y/A.png"
    assert {frozenset((first, second)), frozenset((first, "./=B"))} <= pairs
    assert f"{tmp_path}/z/A.png" not in output
    assert "left out 1 copies with the same name and content" in errors


def test_the_table_and_the_page_need_two_files(place: Path, tmp_path: Path) -> None:
    both = str(tmp_path / "both")
    status, _, errors = search(place, "--csv", both, "--sheet", both)
    assert status == 1
    assert "Name two files" in errors
    assert not (tmp_path / "both").exists()


def test_other_files_are_not_overwritten(place: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("<!doctype html><title>mine</title>")
    status, _, errors = search(place, "--sheet", str(mine))
    assert status == 1
    assert "mine.html: exists, and is not a file that this project has written" in errors
    assert mine.read_text() == "<!doctype html><title>mine</title>"


def test_a_folder_without_two_photos_is_refused(place: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "one.png")
    status, _, errors = search(place, photos=str(tmp_path))
    assert status == 1
    assert "1 photos could be read; two are needed" in errors


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_sheet_is_accessible(place: Path, tmp_path: Path, browser: Browser) -> None:
    sheet = tmp_path / "pairs.html"
    assert search(place, "--sheet", str(sheet))[0] == 0
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(sheet.as_uri())
    assert serious_findings(page) == []
    assert page.evaluate("document.body.scrollWidth <= innerWidth")
