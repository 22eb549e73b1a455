"""Random changes of training photos: one batch at a time, each photo with its own random values.

The operations are torchvision's (`RandomHorizontalFlip`, `RandomVerticalFlip`, `RandomRotation`
with bilinear interpolation and black corners, `ColorJitter` in the order brightness, contrast,
saturation, hue), so a test can compare them photo by photo. Flips and rotation are one affine map
and one resampling.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from lesions.common.params import Augment

# Columns of the random changes.
HORIZONTAL, VERTICAL, ANGLE, BRIGHTNESS, CONTRAST, SATURATION, HUE = range(7)
LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
CPU_PART = 4  # photos at a time on a CPU: 2.4 MB at 224 px stay in its cache, 1.5× as fast


def random_changes(
    count: int, settings: Augment, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Draw the random changes of `count` photos.

    Every column is drawn whatever the settings, so a change of one setting leaves the other
    columns as they were.

    Returns:
        (count, 7) float32: horizontal and vertical flip (1 no, -1 yes), angle in degrees
        counter-clockwise, factors of brightness, contrast and saturation, and the shift of the hue
        as a fraction of the colour circle.
    """
    uniform = rng.random((7, count))
    probabilities = np.array([[settings.horizontal_flip], [settings.vertical_flip]])
    flips = np.where(uniform[:2] < probabilities, -1.0, 1.0)
    spread = uniform[2:] * 2 - 1
    centre = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    limits = np.array(
        [
            settings.rotation,
            settings.brightness,
            settings.contrast,
            settings.saturation,
            settings.hue,
        ]
    )
    changes = centre[:, None] + spread * limits[:, None]
    return np.concatenate([flips, changes]).T.astype(np.float32)


def to_float(photos: Tensor) -> Tensor:
    """Turn (b, h, w, 3) uint8 into (b, 3, h, w) float32 in [0, 1], channels last in memory."""
    return photos.permute(0, 3, 1, 2).float().div_(255)


def augment(photos: Tensor, changes: Tensor, settings: Augment) -> Tensor:
    """Change each photo of a batch by its own random values.

    Args:
        photos: (b, s, s, 3) uint8, RGB, on any device.
        changes: (b, 7) float32 from `random_changes`, on the same device.
        settings: steps that they switch off are left out.

    Returns:
        (b, 3, s, s) float32 in [0, 1].
    """
    size = CPU_PART if photos.device.type == "cpu" else len(photos)
    parts = [
        color_jitter(flip_and_rotate(to_float(part), change), change, settings)
        for part, change in zip(photos.split(size), changes.split(size), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def flip_and_rotate(images: Tensor, changes: Tensor) -> Tensor:
    """Flip, then rotate about the centre: (b, 3, s, s) in, the same out, black outside."""
    angle = changes[:, ANGLE] * (math.pi / 180)
    sine, cosine, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    flip_x, flip_y = changes[:, HORIZONTAL], changes[:, VERTICAL]
    # The map goes from a position in the result to one in the photo: rotate back, then flip back.
    cells = [flip_x * cosine, -flip_x * sine, zero, flip_y * sine, flip_y * cosine, zero]
    theta = torch.stack(cells, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def color_jitter(images: Tensor, changes: Tensor, settings: Augment) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order, in place.

    Args:
        images: (b, 3, s, s) float32 in [0, 1]; overwritten.
        changes: (b, 7) from `random_changes`.
        settings: steps that they switch off are left out.

    Returns:
        The same shape and range.
    """

    def column(index: int) -> Tensor:
        return changes[:, index].view(-1, 1, 1, 1)

    if settings.brightness:
        images = images.mul_(column(BRIGHTNESS)).clamp_(0, 1)
    if settings.contrast:
        mean = _luma(images.mean(dim=(2, 3), keepdim=True))
        images = images.mul_(column(CONTRAST)).add_(mean * (1 - column(CONTRAST))).clamp_(0, 1)
    if settings.saturation:
        grey = _luma(images)
        images = images.mul_(column(SATURATION)).add_(grey * (1 - column(SATURATION))).clamp_(0, 1)
    if settings.hue:
        images = _shift_hue(images, column(HUE))
    return images


def _luma(images: Tensor) -> Tensor:
    """Turn RGB into grey: (b, 3, h, w) to (b, 1, h, w)."""
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue at the same saturation and value (HSV), without leaving RGB.

    A channel of a colour with hue h (in sixths of the circle) is
    min + chroma × clamp(|(h + offset) mod 6 - 3| - 1, 0, 1), offset 0, 4, 2 for red, green, blue.
    """
    red, green, blue = images.split(1, dim=1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    scale = 1 / chroma.clamp_min(1e-8)  # grey has no hue, and its chroma 0 cancels the result
    hue = torch.where(
        high == red,
        (green - blue) * scale,
        torch.where(high == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    hue += shift * 6
    for channel, offset in zip((red, green, blue), (0, 4, 2), strict=True):
        share = (hue + offset).remainder_(6).sub_(3).abs_().sub_(1).clamp_(0, 1)
        channel.copy_(share.mul_(chroma).add_(low))  # a view: writes into `images`
    return images
