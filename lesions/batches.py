"""Batches of photos, brought to the device so that the network never waits for them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lesions.photos import Pixels
from lesions.threads import threads

if TYPE_CHECKING:
    from torch import Tensor, device

Channels = tuple[float, float, float]  # red, green, blue
Rows = npt.NDArray[np.int64]
UPLOAD = 1024  # photos a copy while the data set moves to a GPU: 154 MB at 224 px


def cut(rows: Rows, size: int, least: int = 2) -> list[Rows]:
    """Cut rows into batches of `size`, the last one shorter.

    Fewer than `least` rows left over join the batch before them: batch norm has no variance of one
    value, in any process.
    """
    return np.split(rows, range(size, len(rows) - least + 1, size))


class Batches:
    """Photos of an array as batches on a device.

    Where a GPU has room for the whole array twice, it lies there and batches are gathered on it;
    else a thread gathers the next batch on the host (from pinned memory, for a GPU) while the
    network works on this one.
    """

    def __init__(self, images: Pixels, place: "device") -> None:
        """Take `images`, (n, s, s, 3) uint8, mapped or in memory."""
        import torch

        self._images = images
        self._place = place
        self._resident: Tensor | None = None
        if place.type == "cuda" and 2 * images.nbytes < torch.cuda.mem_get_info(place)[0]:
            self._resident = torch.empty(images.shape, dtype=torch.uint8, device=place)
            for start in range(0, len(images), UPLOAD):
                part = np.array(images[start : start + UPLOAD])  # a copy: the map is read-only
                self._resident[start : start + UPLOAD] = torch.from_numpy(part)

    def __call__(self, batches: list[Rows]) -> "Iterator[Tensor]":
        """Yield each batch as (b, s, s, 3) uint8 on the device."""
        import torch

        if self._resident is not None:
            on_device = torch.from_numpy(np.concatenate(batches)).to(self._place)
            for rows in on_device.split([len(batch) for batch in batches]):
                yield self._resident[rows]
            return
        with threads(1) as pool:
            coming = pool.submit(self._gather, batches[0])
            for following in batches[1:]:
                ready, coming = coming, pool.submit(self._gather, following)
                yield ready.result().to(self._place, non_blocking=True)
            yield coming.result().to(self._place, non_blocking=True)

    def _gather(self, rows: Rows) -> "Tensor":
        """Copy rows out of the array: (b, s, s, 3) uint8 in host memory."""
        import torch

        batch = torch.from_numpy(self._images[rows])
        return batch.pin_memory() if self._place.type == "cuda" else batch

    def channel_statistics(self, rows: Rows) -> tuple[Channels, Channels]:
        """Find mean and standard deviation of each channel over some photos, pixels in [0, 1].

        Counted, not summed up in floating point: the same on every machine.
        """
        import torch

        counts = np.zeros((3, 256), np.int64)
        for batch in self(cut(rows, 64)):
            for channel in range(3):
                values = batch[..., channel].reshape(-1)
                counts[channel] += torch.bincount(values, minlength=256).cpu().numpy()
        levels = np.arange(256) / 255
        share = counts / counts.sum(axis=1, keepdims=True)
        mean = share @ levels
        std = np.sqrt(share @ levels**2 - mean**2)
        return _channels(mean), _channels(std)


def _channels(values: npt.NDArray[np.float64]) -> Channels:
    red, green, blue = values.round(6).tolist()
    return red, green, blue
