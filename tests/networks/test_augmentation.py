import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from torchvision.transforms import InterpolationMode

from lesions.common.params import Augment, Params
from lesions.networks.augmentation import ANGLE, BRIGHTNESS, HUE, augment, random_changes, to_float

STRONG = Augment(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotation=90,
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    hue=0.5,
)
NOTHING = Augment(
    horizontal_flip=0, vertical_flip=0, rotation=0, brightness=0, contrast=0, saturation=0, hue=0
)


@pytest.fixture
def photos() -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 40, 3), dtype=np.uint8)
    pixels[0] = 90  # grey: without a hue
    pixels[1] = 0
    pixels[2] = 255
    return torch.from_numpy(pixels)


def with_torchvision(photo: torch.Tensor, change: np.ndarray) -> torch.Tensor:
    """Change one photo with torchvision, by the same random values."""
    image = photo.permute(2, 0, 1).float() / 255
    horizontal, vertical, angle, brightness, contrast, saturation, hue = map(float, change)
    image = TF.hflip(image) if horizontal < 0 else image
    image = TF.vflip(image) if vertical < 0 else image
    image = TF.rotate(image, angle, interpolation=InterpolationMode.BILINEAR)
    image = TF.adjust_brightness(image, brightness)
    image = TF.adjust_contrast(image, contrast)
    image = TF.adjust_saturation(image, saturation)
    result: torch.Tensor = TF.adjust_hue(image, hue)
    return result


def test_agrees_with_torchvision_photo_by_photo(photos: torch.Tensor) -> None:
    changes = random_changes(len(photos), STRONG, np.random.default_rng(1))
    assert {-1.0, 1.0} == set(changes[:, 0]) == set(changes[:, 1])
    changed = augment(photos, torch.from_numpy(changes), STRONG)
    for photo, change, result in zip(photos, changes, changed, strict=True):
        torch.testing.assert_close(result, with_torchvision(photo, change), atol=1e-4, rtol=0)


def test_nothing_changes_nothing(photos: torch.Tensor) -> None:
    changes = torch.from_numpy(random_changes(len(photos), NOTHING, np.random.default_rng(1)))
    torch.testing.assert_close(
        augment(photos, changes, NOTHING), to_float(photos), atol=1e-5, rtol=0
    )


def test_draws_stay_within_their_settings(params: Params) -> None:
    changes = random_changes(20_000, params.augment, np.random.default_rng(2))
    assert 19 < changes[:, ANGLE].max() <= 20
    assert -20 <= changes[:, ANGLE].min() < -19
    assert 0.9 <= changes[:, BRIGHTNESS].min() < 0.91
    assert 1.09 < changes[:, BRIGHTNESS].max() <= 1.1 + 1e-6
    assert 0.099 < np.abs(changes[:, HUE]).max() <= 0.1
    assert abs((changes[:, 0] < 0).mean() - 0.5) < 0.02


def test_changing_one_setting_leaves_other_draws(params: Params) -> None:
    other = params.augment.model_copy(update={"brightness": 0.3})
    a = random_changes(10, params.augment, np.random.default_rng(3))
    b = random_changes(10, other, np.random.default_rng(3))
    same = (a == b).all(axis=0)
    assert [index for index in range(7) if not same[index]] == [BRIGHTNESS]
