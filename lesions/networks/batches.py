"""Batches of photos, loaded to the device so that the network never waits for them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lesions.common.threads import thread_pool
from lesions.common.types import Pixels, Rows

Channels = tuple[float, float, float]  # red, green, blue
LEAST_STD = 1e-4
UPLOAD = 1024  # photos per copy while the dataset moves to a GPU: 154 MB at 224 px


def split_into_batches(rows: Rows, size: int, minimum: int = 2) -> list[Rows]:
    """Split rows into batches of `size`, the last one shorter.

    If fewer than `minimum` rows would be left for the last batch, they join the batch before it,
    because batch norm cannot compute a variance from one value.

    >>> [batch.tolist() for batch in split_into_batches(np.arange(7), 3)]
    [[0, 1, 2], [3, 4, 5, 6]]
    """
    return np.split(rows, range(size, len(rows) - minimum + 1, size))


class PhotoLoader:
    """Loads batches of photos from an array to a device.

    A thread gathers the next batch on the host (in pinned memory for a GPU) while the network works
    on the present one. For training, which reads every photo many times, the whole array can be
    resident in a GPU's memory instead, and batches are gathered there.
    """

    def __init__(self, images: Pixels, device: torch.device, resident: bool = False) -> None:
        """Take `images`, (n, s, s, 3) uint8, memory-mapped or in memory.

        Args:
            images: all photos.
            device: where the batches go.
            resident: copy the whole array to the device, if it is a GPU with room for it twice.
        """
        self._images = images
        self._device = device
        self._on_gpu: Tensor | None = None
        if resident and has_room(images, device):
            self._on_gpu = torch.empty(images.shape, dtype=torch.uint8, device=device)
            for start in range(0, len(images), UPLOAD):
                part = np.array(images[start : start + UPLOAD])  # a copy: the map is read-only
                self._on_gpu[start : start + UPLOAD] = torch.from_numpy(part)

    @property
    def resident(self) -> bool:
        """Whether the whole array is in the GPU's memory."""
        return self._on_gpu is not None

    def leave_gpu(self) -> None:
        """Give the GPU's memory back, and load from the host from now on."""
        self._on_gpu = None

    def __call__(self, batches: list[Rows]) -> Iterator[Tensor]:
        """Yield each batch as (b, s, s, 3) uint8 on the device."""
        if self._on_gpu is not None:
            rows_on_gpu = torch.from_numpy(np.concatenate(batches)).to(self._device)
            for rows in rows_on_gpu.split([len(batch) for batch in batches]):
                yield self._on_gpu[rows]
            return
        pinned = self._device.type == "cuda"  # only from pinned memory can a copy run on its own
        with thread_pool(1) as pool:
            coming = pool.submit(self._gather, batches[0])
            for following in batches[1:]:
                ready, coming = coming, pool.submit(self._gather, following)
                yield ready.result().to(self._device, non_blocking=pinned)
            yield coming.result().to(self._device, non_blocking=pinned)

    def _gather(self, rows: Rows) -> Tensor:
        """Copy rows out of the array: (b, s, s, 3) uint8 in host memory."""
        batch = torch.from_numpy(self._images[rows])
        return batch.pin_memory() if self._device.type == "cuda" else batch


def has_room(images: Pixels, device: torch.device) -> bool:
    """Say whether `device` is a GPU with room for an array twice: training needs memory too."""
    return device.type == "cuda" and 2 * images.nbytes < torch.cuda.mem_get_info(device)[0]


def channel_statistics(loader: PhotoLoader, rows: Rows) -> tuple[Channels, Channels]:
    """Compute mean and standard deviation of each channel over some photos, pixels in [0, 1].

    From counts of the 256 pixel values, so the result is the same on every machine.
    """
    counts = np.zeros((3, 256), np.int64)
    for batch in loader(split_into_batches(rows, 64)):
        for channel in range(3):
            values = batch[..., channel].reshape(-1)
            counts[channel] += torch.bincount(values, minlength=256).cpu().numpy()
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    # Photos of one colour have none; the model card allows no less.
    std = np.sqrt(np.maximum(share @ levels**2 - mean**2, LEAST_STD**2))
    return _as_channels(mean), _as_channels(std)


def _as_channels(values: npt.NDArray[np.float64]) -> Channels:
    red, green, blue = values.round(6).tolist()
    return red, green, blue
