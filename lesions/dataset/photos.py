"""Photos: decoded, scaled to one size and stored in one array of pixels."""

import io
import os
import re
import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from lesions.common.errors import LesionsError, is_out_of_memory
from lesions.common.progress import progress
from lesions.common.threads import thread_pool
from lesions.common.types import Pixels
from lesions.dataset.metadata import read_table

Photo = tuple[str, Callable[[], bytes]]  # its name, and a function that reads it

ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".bmp", ".webp")
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")  # JPEG includes MPO, whose first photo is used
MAX_BYTES = 64_000_000  # of a file; a phone's photo has 5 MB
MAX_PIXELS = 80_000_000  # more than a phone's photo; Pillow warns at 89 million
MAX_SIDE = 20_000  # an image of 1 × 80 million pixels takes 26 s and 2.5 GB
MAX_SCANS = 100  # of a progressive JPEG, which usually has 10; each costs a pass over all pixels
CHUNK = 256  # photos queued at a time, so that memory stays constant

# What people have under a photo's name, by its first bytes.
_OTHER_FILES = (
    (rb"....ftyp(hei|hev|mif|msf)", "a HEIC photo; export it as JPEG"),
    (rb"....ftypavi", "an AVIF photo; export it as JPEG"),
    (rb".{128}DICM", "a DICOM file; export the photo as PNG, for example with dcmj2pnm"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 photo; export it as PNG"),
    (rb"GIF8", "a GIF, which has at most 256 colours; use the original photo"),
    (rb"%PDF", "a PDF; export the photo as JPEG"),
    (rb"version https://git-lfs", "a pointer of Git LFS; run `git lfs pull`"),
    (rb"\s*(<!doctype|<html|<\?xml)", "a web page; download the photo again"),
    (rb"PK\x03\x04", "a zip file; unpack it"),
)
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
Image.MAX_IMAGE_PIXELS = None  # `decode` checks the size itself, without a warning
# Some cameras and editors store over 1 MB of text or profile, which Pillow refuses by default.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_BYTES
# How to turn a photo upright, by the EXIF tag Orientation (274).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def file_name(image_id: str, ending: str) -> str:
    """Name the file of a photo in data/raw/images; signs that some disks refuse are escaped.

    >>> file_name("ward 3/IMG:1", ".jpg")
    'ward 3%2FIMG%3A1.jpg'
    """
    return re.sub(r'[\\/:*?"<>|%]', lambda sign: f"%{ord(sign[0]):02X}", image_id) + ending


def image_id_of(path: Path) -> str:
    """Read the image_id from the name that `file_name` gives."""
    return unquote(path.stem)


def read_file(path: Path) -> bytes:
    """Read a photo's file, which must be a regular file of at most MAX_BYTES.

    Raises:
        LesionsError: it is missing, not a regular file (but a device, for example), too large or
            unreadable.
    """
    try:
        if path.exists() and not path.is_file():
            raise LesionsError(f"{path}: not a regular file.")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise LesionsError(f"{path}: {size:,} bytes; at most {MAX_BYTES:,} are allowed.")
        return path.read_bytes()
    except OSError as error:
        raise LesionsError(f"{path}: {error.strerror}.") from None


def decode(data: bytes, size: int, name: str) -> Pixels:
    """Decode a photo and scale it to a square, antialiased.

    A JPEG is first shrunk by libjpeg, in the frequency domain, to the smallest power-of-two
    fraction that is no smaller than `size`; a triangle filter does the rest (Pillow's
    `draft` and `BILINEAR`). Greyscale, palette, CMYK and 16-bit become 8-bit RGB; 16-bit greys
    that use only the lower 8 or 12 bits are taken as such. The photo is turned upright by its EXIF
    orientation; other EXIF tags are ignored. Colours are converted from an embedded profile to
    sRGB. Transparent photos are laid on white.

    Args:
        data: the file's bytes.
        size: side in pixels.
        name: of the photo, for error messages.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        LesionsError: the file is empty, truncated, too large, or not a photo.
    """
    return _decode(data, name, lambda width, height: (size, size))


def decode_in_proportion(data: bytes, longest: int, name: str) -> Pixels:
    """Decode a photo like `decode`, but keep its proportions.

    Args:
        data, name: as for `decode`.
        longest: the longer side in pixels; smaller photos are enlarged.

    Returns:
        (height, width, 3) uint8, RGB.
    """

    def scaled(width: int, height: int) -> tuple[int, int]:
        factor = longest / max(width, height)
        return max(1, round(width * factor)), max(1, round(height * factor))

    return _decode(data, name, scaled)


def _decode(data: bytes, name: str, target: Callable[[int, int], tuple[int, int]]) -> Pixels:
    """Decode a photo and scale it; `target` computes the new width and height from the old."""
    if not data:
        raise LesionsError(f"{name}: the file is empty. Download the photo again.")
    if (scans := _count_scans(data)) > MAX_SCANS:
        raise LesionsError(
            f"{name}: a JPEG of {scans} scans; at most {MAX_SCANS} are allowed. Save it again."
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise LesionsError(
                    f"{name}: {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are "
                    f"allowed, and a side of {MAX_SIDE:,}."
                )
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise LesionsError(f"{name}: has several pages or frames. Save one as a photo.")
            if image.mode in ("I", "F"):
                raise LesionsError(f"{name}: has 32 bits per pixel. Save it with 8 or 16.")
            upright, profile = _orientation(image), image.info.get("icc_profile")
            size = target(*image.size)
            image.draft("RGB", size)
            # Scale first: all that follows then works on few pixels.
            small = _eight_bits(image).resize(size, Image.Resampling.BILINEAR)
            small = small.transpose(upright) if upright is not None else small
            return np.array(_to_srgb(small, profile))
    except LesionsError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds on damaged bytes
        raise LesionsError(f"{name}: {_explain(data, error)}.") from None


def _count_scans(data: bytes) -> int:
    """Count the scans of a JPEG, up to its end; 0 for other files."""
    if not data.startswith(b"\xff\xd8"):
        return 0
    scans, position = 0, 2
    # A segment has a marker and its length; after a scan's header come its data, in which no
    # marker but that of a restart (d0 to d7) can occur.
    while found := _MARKER.search(data, position):
        marker, position = data[found.end() - 1], found.end()
        if marker == 0xD9:
            break
        position += int.from_bytes(data[position : position + 2])
        scans += marker == 0xDA
    return scans


def _explain(data: bytes, error: Exception) -> str:
    """Say what a file is that is not a photo, or why it is not a whole one."""
    for pattern, meaning in _OTHER_FILES:
        if re.match(pattern, data, re.IGNORECASE | re.DOTALL):
            return f"not a photo but {meaning}"
    if isinstance(error, UnidentifiedImageError):
        return f"not a photo. Allowed are {', '.join(FORMATS)}; download the photo again"
    why = re.sub(r"\s*<[^<>]* at 0x[0-9a-f]+>", "", str(error))
    return f"not a whole photo ({why}). Download the photo again"


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Read the EXIF orientation; a damaged EXIF block counts as none.

    Pillow turns TIFF files itself.
    """
    if image.format == "TIFF":
        return None
    try:
        return _UPRIGHT.get(image.getexif().get(274, 1))
    except Exception:  # Pillow's EXIF reader raises many kinds on damaged bytes
        return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into 8-bit RGB, RGBA (if it is transparent) or CMYK.

    No copy is made of an image that has one of these modes already.
    """
    if image.mode.startswith("I;16"):  # keep the upper 8 bits of those that are used
        greys = np.asarray(image)
        used = next(bits for bits in (8, 12, 16) if greys.max() < 1 << bits)
        image = Image.fromarray((greys >> (used - 8)).astype(np.uint8))
    if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in ("RGB", "RGBA", "CMYK") else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert RGB, RGBA or CMYK to sRGB without transparency.

    Args:
        image: small, because it was scaled.
        profile: the embedded colour profile. One that is damaged, or of another colour space than
            the image, is ignored, as in browsers.
    """
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    if profile:
        try:
            converted = ImageCms.applyTransform(image, _transform(profile, image.mode))
            assert converted is not None
            return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return image.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    """Prepare the conversion from a colour profile to sRGB; threads may share it."""
    return ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        flags=ImageCms.Flags.NOCACHE,
    )


def resize(photos: Sequence[Photo], size: int, out: Path) -> None:
    """Decode and scale photos on all cores into one .npy file.

    Args:
        photos: the name and the reader of each.
        size: side in pixels.
        out: the file to write, (n, size, size, 3) uint8; the order of rows is that of `photos`.

    Raises:
        LesionsError: as `decode`; or there are no photos, or too little disk space.
    """
    if not photos:
        raise LesionsError("data/raw/images: no photos. Run `dvc repro download`.")

    needed, free = len(photos) * size * size * 3, shutil.disk_usage(out.parent).free
    if needed > free:
        raise LesionsError(
            f"{out}: needs {needed / 1e6:.0f} MB, but {free / 1e6:.0f} MB are free. Make room, or "
            "lower image_size."
        )
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(photos), size, size, 3)}
    with (
        out.open("wb") as file,
        # Threads suffice: Pillow releases the interpreter lock while it decodes and scales.
        thread_pool(os.cpu_count()) as pool,
        progress(len(photos), "photos", f"resize to {size}×{size}") as bar,
    ):
        np.lib.format.write_array_header_1_0(file, header)

        def scale(photo: Photo) -> Pixels:
            name, read = photo
            return decode(read(), size, name)

        for start in range(0, len(photos), CHUNK):
            for pixels in pool.map(scale, photos[start : start + CHUNK]):
                file.write(pixels.data)
                bar.update()


class PhotoArray:
    """The folder that the resize stage writes: pixels, memory-mapped, found by image_id."""

    def __init__(self, folder: Path) -> None:
        """Map `images.npy`, (n, size, size, 3) uint8, and read its row order.

        Raises:
            LesionsError: a file is missing or damaged, or the two do not match.
        """
        self._ids, self._path = folder / "image_ids.csv", folder / "images.npy"
        table = read_table(self._ids, "image_id")
        try:
            self.images: Pixels = np.load(self._path, mmap_mode="r")
        except FileNotFoundError:
            raise LesionsError(f"{self._path}: not found. `dvc repro` makes it.") from None
        except Exception as error:  # numpy's header parser raises many kinds on damaged bytes
            if is_out_of_memory(error):
                raise LesionsError(
                    f"{self._path}: {self._path.stat().st_size / 1e6:.0f} MB cannot be mapped "
                    f"({error}). Raise the limit of memory (ulimit -v), or lower image_size."
                ) from None
            raise LesionsError(
                f"{self._path}: not a whole array ({error}). Run `dvc repro resize`."
            ) from None
        side = self.images.shape[1] if self.images.ndim == 4 else 0
        expected = (len(table), side, side, 3)
        if self.images.shape != expected or self.images.dtype != np.uint8:
            raise LesionsError(
                f"{folder}: images.npy has shape {self.images.shape} and type {self.images.dtype}, "
                f"but image_ids.csv has {len(table)} ids. Run `dvc repro --force resize`."
            )
        self._row = pd.Series(np.arange(len(table)), index=table["image_id"])

    @property
    def size(self) -> int:
        """Width and height of every photo in pixels."""
        return int(self.images.shape[1])

    def writable(self) -> Pixels:
        """Map `images` once more so that changes stay in memory, and the file as it is."""
        pixels: Pixels = np.load(self._path, mmap_mode="c")
        return pixels

    def rows(self, image_ids: "pd.Series[str]") -> npt.NDArray[np.int64]:
        """Find the rows of `images` with these photos: (len(image_ids),) int64."""
        missing = ~image_ids.isin(self._row.index)
        if missing.any():
            raise LesionsError(
                f"{self._ids}: lacks {image_ids[missing].iloc[0]} ({missing.sum()} photos in all). "
                "Run `dvc repro`, so that split and resize read the same photos."
            )
        return self._row.loc[image_ids].to_numpy(dtype=np.int64)
