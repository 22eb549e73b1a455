import numpy as np
import pytest
import torch

from lesions.networks.batches import PhotoLoader, channel_statistics, split_into_batches

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(64, [32, 32]), (70, [32, 32, 6]), (65, [32, 33]), (33, [33]), (5, [5]), (1, [1])],
)
def test_splitting_leaves_no_batch_of_one(count: int, sizes: list[int]) -> None:
    rows = np.arange(count)
    parts = split_into_batches(rows, 32)
    assert [len(part) for part in parts] == sizes
    assert np.array_equal(np.concatenate(parts), rows)


def test_batches_come_whole_and_in_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    rows = np.random.default_rng(1).integers(0, 50, 75)
    parts = split_into_batches(rows, 16)
    got = list(PhotoLoader(images, CPU)(parts))
    assert [len(batch) for batch in got] == [len(part) for part in parts]
    assert np.array_equal(torch.cat(got).numpy(), images[rows])


def test_channel_statistics_are_exact() -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    rows = np.arange(0, 200, 2)
    mean, std = channel_statistics(PhotoLoader(images, CPU), rows)
    pixels = images[rows].reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(std, pixels.std(axis=0), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_resident_batches_are_the_same() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    parts = split_into_batches(np.random.default_rng(1).integers(0, 50, 75), 16)
    got = torch.cat(list(PhotoLoader(images, torch.device("cuda"))(parts))).cpu()
    assert np.array_equal(got.numpy(), images[np.concatenate(parts)])
