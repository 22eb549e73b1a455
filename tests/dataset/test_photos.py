import errno
import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.dataset import photos
from lesions.dataset.photos import PhotoArray, decode, decode_in_proportion, read_file, resize


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


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright_once(orientation: int, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif)
    with Image.open(io.BytesIO(encoded(image))) as upright:
        upright.getexif()[0x0112] = orientation
        expected = np.asarray(ImageOps.exif_transpose(upright))
    assert (decode(buffer.getvalue(), 40, "a") == expected).all()


def test_a_tiff_taken_sideways_keeps_its_proportions() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (60, 30)).save(buffer, "TIFF", exif=exif)
    assert decode_in_proportion(buffer.getvalue(), 40, "a").shape == (40, 20, 3)


@pytest.mark.parametrize(
    "tags",
    [
        # A rational where a signed one belongs, a negative short, a text, an empty offset.
        b"\x9a\x82\x05\x00\x01\x00\x00\x00\xff\xff\xff\x7f",
        b"\x03\x10\x03\x00\x01\x00\x00\x00\xff\xff\xff\xff",
        b"\x0f\x01\x02\x00\xff\xff\xff\xff\x00\x00\x00\x00",
    ],
)
def test_strange_exif_tags_do_not_stop_a_rotated_photo(tags: bytes) -> None:
    # A little-endian TIFF block of two tags: Orientation 6, and the strange one.
    orientation = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    block = b"II*\x00\x08\x00\x00\x00\x02\x00" + orientation + tags + b"\x00\x00\x00\x00"
    image = Image.new("RGB", (40, 40))
    image.paste((255, 255, 255), (0, 0, 40, 20))  # white above
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100, exif=b"Exif\x00\x00" + block)
    pixels = decode(buffer.getvalue(), 40, "a")
    assert (pixels[:, 22:] > 240).all()  # turned to the right
    assert (pixels[:, :18] < 15).all()


def test_colours_are_converted_from_the_embedded_profile() -> None:
    # A profile with red and blue exchanged: what is stored as red must come out as blue.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, blue = (srgb.index(tag) for tag in (b"rXYZ", b"bXYZ"))
    swapped = bytearray(srgb)
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    image = Image.new("RGB", (40, 40), (200, 30, 40))

    def colour(profile: bytes | None) -> list[int]:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", icc_profile=profile)
        return list(decode(buffer.getvalue(), 32, "a")[16, 16].tolist())

    assert colour(None) == [200, 30, 40]
    assert np.abs(np.array(colour(srgb)) - [200, 30, 40]).max() <= 1
    assert np.abs(np.array(colour(bytes(swapped))) - [40, 30, 200]).max() <= 2
    assert colour(b"no profile at all") == [200, 30, 40]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_hidden_colours_do_not_decide(mode: str) -> None:
    results = []
    for hidden in (0, 255):
        image = Image.new("RGBA", (40, 40), (hidden, hidden, hidden, 0))
        image.paste((90, 90, 90, 255), (10, 10, 30, 30))
        results.append(decode(encoded(image.convert(mode)), 40, "a"))
    assert (results[0] == results[1]).all()
    assert (results[0][0, 0] == 255).all()
    assert (results[0][20, 20] == 90).all()


OTHERS = {
    "a HEIC photo": b"\x00\x00\x00\x18ftypheic\x00\x00",
    "a GIF": encoded(Image.new("P", (40, 40)), "GIF"),
    "a PDF": b"%PDF-1.4 and more",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:12",
    "a web page": b"<!DOCTYPE html><p>busy</p>",
    "a zip file": b"PK\x03\x04 and more",
    "a DICOM file": bytes(128) + b"DICM and more",
    "a JPEG 2000 photo": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "not a photo. Allowed are JPEG": b"just a text",
}


@pytest.mark.parametrize("words", OTHERS)
def test_other_files_are_named_in_words(words: str) -> None:
    with pytest.raises(LesionsError, match=words) as error:
        decode(OTHERS[words], 32, "P.jpg")
    assert "0x" not in str(error.value)


def test_too_many_scans_are_refused_at_once() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data[data.index(b"\xff\xda") : -2]
    assert decode(data, 32, "a").shape == (32, 32, 3)
    with pytest.raises(LesionsError, match=r"a JPEG of \d+ scans; at most 100"):
        decode(data[:-2] + 100 * scan + data[-2:], 32, "a")


def test_data_behind_a_jpeg_are_no_scans() -> None:
    data = encoded(Image.new("RGB", (64, 64)), "JPEG")
    assert decode(data + b"\xff\xda\x00\x02" * 500, 32, "a").shape == (32, 32, 3)


def test_several_pages_or_frames_are_refused() -> None:
    buffer = io.BytesIO()
    pages = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(LesionsError, match="several pages or frames"):
        decode(buffer.getvalue(), 32, "a")


def test_a_very_long_side_is_refused() -> None:
    with pytest.raises(LesionsError, match=r"1×30000 pixels.*a side of 20,000"):
        decode(encoded(Image.new("1", (1, 30_000))), 32, "a")


def test_only_regular_files_of_some_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"12345")
    assert read_file(file) == b"12345"
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("fifo.jpg", "zero.jpg"):
        with pytest.raises(LesionsError, match="not a regular file"):
            read_file(tmp_path / name)
    with pytest.raises(LesionsError, match="No such file"):
        read_file(tmp_path / "absent.jpg")
    monkeypatch.setattr(photos, "MAX_BYTES", 4)
    with pytest.raises(LesionsError, match="5 bytes; at most 4 are allowed"):
        read_file(file)


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
    with pytest.raises(LesionsError, match=r"a: has 32 bits per pixel\. Save it with 8 or 16\.$"):
        decode(encoded(Image.new("F", (40, 40)), "TIFF"), 32, "a")


def test_libjpeg_does_the_first_half_of_the_shrinking(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sorted((raw / "images").iterdir())[0].read_bytes()
    sizes = []
    eight_bits = photos._eight_bits

    def record(image: Image.Image) -> Image.Image:
        sizes.append(image.size)
        return eight_bits(image)

    monkeypatch.setattr(photos, "_eight_bits", record)
    decode(data, 224, "a")
    assert sizes == [(300, 225)]


def test_sixteen_bits_keep_the_upper_eight() -> None:
    grey = np.full((40, 40), 0x80FF, np.uint16)
    assert (decode(encoded(Image.fromarray(grey)), 32, "a") == 0x80).all()


@pytest.mark.parametrize(("used", "expected"), [(0x00C0, 0xC0), (0x0C0F, 0xC0), (0xC000, 0xC0)])
def test_greys_of_8_or_12_bits_in_16_are_not_dark(used: int, expected: int) -> None:
    grey = np.full((40, 40), used, np.uint16)
    assert (decode(encoded(Image.fromarray(grey)), 32, "a") == expected).all()


def test_a_photo_with_much_text_and_a_large_profile_is_read() -> None:
    info = PngInfo()
    info.add_text("Comment", "words " * 400_000, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    image = Image.new("RGB", (40, 40), (9, 99, 199))
    image.save(buffer, "PNG", pnginfo=info, icc_profile=profile + bytes(2_000_000))
    assert (decode(buffer.getvalue(), 32, "a") == (9, 99, 199)).all()


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"", "empty"), (b"\xff\xd8\xff", "not a whole photo|not a photo")],
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


def test_too_little_memory_for_the_array_is_not_called_damage(
    resized: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(np, "load", refused)
    with pytest.raises(LesionsError, match=r"MB cannot be mapped .* lower image_size"):
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
