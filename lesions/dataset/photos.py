"""Photos: decoded, scaled to one size and stored in one array of pixels."""

import errno
import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageOps

from lesions.common.errors import LesionsError
from lesions.common.progress import progress
from lesions.common.threads import thread_pool
from lesions.dataset.metadata import read_table

Pixels = npt.NDArray[np.uint8]
Photo = tuple[str, Callable[[], bytes]]  # its name, and a function that reads it

MAX_PIXELS = 80_000_000  # more than a phone's photo; 240 MB as RGB; Pillow warns at 89
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
CHUNK = 4096  # photos queued at a time, so that memory stays constant


def decode(data: bytes, size: int, name: str) -> Pixels:
    """Decode a photo and scale it to a square, antialiased.

    A JPEG is first shrunk by libjpeg, in the frequency domain, to the smallest power-of-two
    fraction that is no smaller than `size`; a triangle filter does the rest (Pillow's
    `draft` and `BILINEAR`). Greyscale, palette, CMYK, alpha and 16-bit become 8-bit RGB.

    Args:
        data: the file's bytes.
        size: side in pixels.
        name: of the photo, for error messages.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        LesionsError: the file is empty, truncated, too large, or not a photo.
    """
    if not data:
        raise LesionsError(f"{name}: the file is empty. Fetch the photo again.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise LesionsError(
                    f"{name}: {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are "
                    "allowed."
                )
            image.draft("RGB", (size, size))
            return np.array(_rgb(image).resize((size, size), Image.Resampling.BILINEAR))
    except LesionsError:
        raise
    except Image.DecompressionBombError:
        raise LesionsError(
            f"{name}: too many pixels; at most {MAX_PIXELS:,} are allowed."
        ) from None
    except Exception as error:  # Pillow's plugins raise many kinds on damaged bytes
        raise LesionsError(
            f"{name}: not a whole photo ({error}). Allowed are {', '.join(FORMATS)}; "
            "fetch the photo again."
        ) from None


def _rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode upright and into 8-bit RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel")
    if image.mode.startswith("I;16"):  # keep the upper 8 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


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
        file.flush()
        header_bytes = file.tell()

        def scale(row: int) -> None:
            name, read = photos[row]
            pixels = decode(read(), size, name)
            written = os.pwrite(file.fileno(), pixels.data, header_bytes + row * pixels.nbytes)
            if written < pixels.nbytes:
                raise OSError(errno.ENOSPC, "No space left", str(out))

        for start in range(0, len(photos), CHUNK):
            for _ in pool.map(scale, range(start, min(start + CHUNK, len(photos)))):
                bar.update()


class PhotoArray:
    """The folder that the resize stage writes: pixels, memory-mapped, found by image_id."""

    def __init__(self, folder: Path) -> None:
        """Map `images.npy`, (n, size, size, 3) uint8, and read its row order.

        Raises:
            LesionsError: a file is missing or damaged, or the two do not match.
        """
        self._ids = folder / "image_ids.csv"
        table = read_table(self._ids, "image_id")
        try:
            self.images: Pixels = np.load(folder / "images.npy", mmap_mode="r")
        except FileNotFoundError:
            raise LesionsError(
                f"{folder / 'images.npy'}: not found. `dvc repro` makes it."
            ) from None
        except Exception as error:  # numpy's header parser raises many kinds on damaged bytes
            raise LesionsError(
                f"{folder / 'images.npy'}: not a whole array ({error}). Run `dvc repro resize`."
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

    def rows(self, image_ids: "pd.Series[str]") -> npt.NDArray[np.int64]:
        """Find the rows of `images` with these photos: (len(image_ids),) int64."""
        missing = ~image_ids.isin(self._row.index)
        if missing.any():
            raise LesionsError(
                f"{self._ids}: lacks {image_ids[missing].iloc[0]} ({missing.sum()} photos in all). "
                "Run `dvc repro`, so that split and resize read the same photos."
            )
        return self._row.loc[image_ids].to_numpy(dtype=np.int64)
