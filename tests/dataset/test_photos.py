import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.dataset import photos
from lesions.dataset.photos import PhotoArray, decode, resize


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_scaling_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    small = decode(encoded(Image.fromarray(stripes)), 32, "a")
    assert small.shape == (32, 32, 3)
    assert small.dtype == np.uint8
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 2


def test_shrinking_inside_libjpeg_changes_little(raw: Path) -> None:
    path = sorted((raw / "images").iterdir())[0]
    with Image.open(path) as image:
        plain = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(decode(path.read_bytes(), 224, path.name).astype(int) - plain).mean() < 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (50, 40), (255, 255, 255)).convert(mode)
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    assert (decode(data, 32, "a") == 255).all()


def test_a_photo_taken_sideways_is_turned_upright() -> None:
    image = Image.new("RGB", (40, 40))
    image.paste((255, 255, 255), (0, 0, 40, 20))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    pixels = decode(buffer.getvalue(), 40, "a")
    assert (pixels[:, 20:] == 255).all()
    assert (pixels[:, :20] == 0).all()


def test_thirty_two_bits_are_refused() -> None:
    with pytest.raises(LesionsError, match="32 bits a pixel"):
        decode(encoded(Image.new("F", (40, 40)), "TIFF"), 32, "a")


def test_libjpeg_does_the_first_half_of_the_shrinking(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sorted((raw / "images").iterdir())[0].read_bytes()
    sizes = []
    rgb = photos._rgb

    def record(image: Image.Image) -> Image.Image:
        sizes.append(image.size)
        return rgb(image)

    monkeypatch.setattr(photos, "_rgb", record)
    decode(data, 224, "a")
    assert sizes == [(300, 225)]


def test_sixteen_bits_keep_the_upper_eight() -> None:
    grey = np.full((40, 40), 0x80FF, np.uint16)
    assert (decode(encoded(Image.fromarray(grey)), 32, "a") == 0x80).all()


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"", "empty"), (b"<html>busy</html>", "not a whole photo"), (b"\xff\xd8\xff", "not a whole")],
)
def test_what_is_no_photo(data: bytes, word: str) -> None:
    with pytest.raises(LesionsError, match=rf"P_1\.jpg.*{word}"):
        decode(data, 32, "P_1.jpg")


def test_truncated_photo(raw: Path) -> None:
    data = sorted((raw / "images").iterdir())[0].read_bytes()
    with pytest.raises(LesionsError, match="not a whole photo"):
        decode(data[: len(data) // 2], 32, "P_1.jpg")


def test_absurd_dimensions_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "MAX_PIXELS", 1000)
    with pytest.raises(LesionsError, match="50×40 pixels; at most 1,000"):
        decode(encoded(Image.new("RGB", (50, 40))), 32, "a")


@pytest.fixture
def resized(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(photos, "CHUNK", 5)
    paths = sorted((raw / "images").iterdir())
    resize([(path.name, path.read_bytes) for path in paths], 32, tmp_path / "images.npy")
    write_csv(tmp_path / "image_ids.csv", pd.DataFrame({"image_id": [path.stem for path in paths]}))
    return tmp_path


def test_array_holds_each_photo_in_its_row(raw: Path, resized: Path) -> None:
    array = PhotoArray(resized)
    paths = sorted((raw / "images").iterdir())
    assert array.images.shape == (28, 32, 32, 3)
    assert array.size == 32
    for row, path in enumerate(paths):
        assert np.array_equal(array.images[row], decode(path.read_bytes(), 32, "a"))
    assert list(array.rows(pd.Series([paths[3].stem, paths[0].stem, paths[3].stem]))) == [3, 0, 3]


@pytest.mark.parametrize("count", [1, 5])
def test_the_array_is_the_same_with_any_number_of_threads(
    raw: Path, resized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: count)
    paths = sorted((raw / "images").iterdir())
    resize([(path.name, path.read_bytes) for path in paths], 32, tmp_path / "again.npy")
    assert (tmp_path / "again.npy").read_bytes() == (resized / "images.npy").read_bytes()


def test_unknown_photo_is_named(resized: Path) -> None:
    with pytest.raises(LesionsError, match=r"lacks stranger \(1 photos in all\)"):
        PhotoArray(resized).rows(pd.Series(["stranger"]))


def test_truncated_array_is_refused(resized: Path) -> None:
    file = resized / "images.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(LesionsError, match=r"images\.npy: not a whole array"):
        PhotoArray(resized)


def test_array_of_another_kind_is_refused(resized: Path) -> None:
    np.save(resized / "images.npy", np.zeros((28, 32, 32, 3), np.float32))
    with pytest.raises(LesionsError, match=r"shape \(28, 32, 32, 3\) and type float32"):
        PhotoArray(resized)
    (resized / "images.npy").unlink()
    with pytest.raises(LesionsError, match="not found"):
        PhotoArray(resized)


def test_array_and_ids_that_do_not_fit(resized: Path) -> None:
    (resized / "image_ids.csv").write_text("image_id\na\n")
    with pytest.raises(LesionsError, match=r"but image_ids\.csv has 1 ids"):
        PhotoArray(resized)


def test_an_array_that_does_not_fit_the_disk_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    with pytest.raises(LesionsError, match=r"images\.npy: needs 15 MB, but 10 MB are free"):
        resize([("a", bytes)] * 100, 224, tmp_path / "images.npy")
    assert not (tmp_path / "images.npy").exists()
