"""Random changes of training photos: a batch at a time, each photo with its own draws.

The definitions are torchvision's (`RandomHorizontalFlip`, `RandomVerticalFlip`,
`RandomRotation` with bilinear interpolation and black corners, `ColorJitter` in the order
brightness, contrast, saturation, hue), so that a test can compare photo by photo. The geometric
part is one affine map and one resampling.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lesions.params import Augment

if TYPE_CHECKING:
    from torch import Tensor

# Columns of the draws.
HORIZONTAL, VERTICAL, ANGLE, BRIGHTNESS, CONTRAST, SATURATION, HUE = range(7)
GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
CPU_PART = 4  # photos changed at a time on a CPU: 2.4 MB at 224 px stay in its cache, 1.5× as fast


def draw(count: int, settings: Augment, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw the changes of `count` photos.

    Returns:
        (count, 7) float32: horizontal and vertical flip (1 as it is, -1 mirrored), angle in
        degrees counter-clockwise, factors of brightness, contrast and saturation, turn of the
        hue as a fraction of the circle. Every column is drawn whatever the settings, so that
        changing one of them leaves the others as they were.
    """
    uniform = rng.random((7, count))
    flips = np.where(
        uniform[:2] < np.array([[settings.horizontal_flip], [settings.vertical_flip]]), -1.0, 1.0
    )
    spread = uniform[2:] * 2 - 1
    reach = [settings.rotation, settings.brightness, settings.contrast, settings.saturation]
    centre = [0.0, 1.0, 1.0, 1.0, 0.0]
    changes = np.array(centre)[:, None] + spread * np.array([*reach, settings.hue])[:, None]
    return np.concatenate([flips, changes]).T.astype(np.float32)


def to_unit(photos: "Tensor") -> "Tensor":
    """Turn (b, h, w, 3) uint8 into (b, 3, h, w) float32 in [0, 1], channels last in memory."""
    return photos.permute(0, 3, 1, 2).float().div_(255)


def augment(photos: "Tensor", draws: "Tensor", settings: Augment) -> "Tensor":
    """Change each photo of a batch by its own draws.

    Args:
        photos: (b, s, s, 3) uint8, RGB, on any device.
        draws: (b, 7) float32 from `draw`, on the same device.
        settings: what can be non-zero in `draws`; steps that do nothing are left out.

    Returns:
        (b, 3, s, s) float32 in [0, 1].
    """
    import torch

    size = CPU_PART if photos.device.type == "cpu" else len(photos)
    return torch.cat(
        [
            jitter(move(to_unit(part), change), change, settings)
            for part, change in zip(photos.split(size), draws.split(size), strict=True)
        ]
    )


def move(images: "Tensor", draws: "Tensor") -> "Tensor":
    """Flip, then rotate about the centre: (b, 3, s, s) in, the same out, black outside."""
    import torch
    import torch.nn.functional as F

    angle = draws[:, ANGLE] * (math.pi / 180)
    sine, cosine, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    across, down = draws[:, HORIZONTAL], draws[:, VERTICAL]
    # From a place in the result to its place in the photo: turned back, then mirrored back.
    cells = [across * cosine, -across * sine, zero, down * sine, down * cosine, zero]
    theta = torch.stack(cells, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def jitter(images: "Tensor", draws: "Tensor", settings: Augment) -> "Tensor":
    """Change brightness, contrast, saturation and hue, in this order, in place.

    Args:
        images: (b, 3, s, s) float32 in [0, 1]; overwritten.

    Returns:
        The same shape and range.
    """

    def of(column: int) -> "Tensor":
        return draws[:, column].view(-1, 1, 1, 1)

    if settings.brightness:
        images = images.mul_(of(BRIGHTNESS)).clamp_(0, 1)
    if settings.contrast:
        mean = _grey(images.mean(dim=(2, 3), keepdim=True))
        images = images.mul_(of(CONTRAST)).add_(mean * (1 - of(CONTRAST))).clamp_(0, 1)
    if settings.saturation:
        grey = _grey(images)
        images = images.mul_(of(SATURATION)).add_(grey * (1 - of(SATURATION))).clamp_(0, 1)
    if settings.hue:
        images = _turn_hue(images, of(HUE))
    return images


def _grey(images: "Tensor") -> "Tensor":
    """Weigh the channels: (b, 3, h, w) to (b, 1, h, w)."""
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return red * GREY[0] + green * GREY[1] + blue * GREY[2]


def _turn_hue(images: "Tensor", turn: "Tensor") -> "Tensor":
    """Turn the hue at the same saturation and value (HSV), without leaving RGB.

    A channel of a colour with hue h (in sixths of the circle) is
    min + chroma × clamp(|(h + offset) mod 6 - 3| - 1, 0, 1), offset 0, 4, 2 for red, green, blue.
    """
    import torch

    red, green, blue = images.split(1, dim=1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    scale = 1 / chroma.clamp_min(1e-8)  # grey has no hue: chroma 0 wipes out whatever comes
    hue = torch.where(
        high == red,
        (green - blue) * scale,
        torch.where(high == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    hue += turn * 6
    for channel, offset in zip((red, green, blue), (0, 4, 2), strict=True):
        share = (hue + offset).remainder_(6).sub_(3).abs_().sub_(1).clamp_(0, 1)
        channel.copy_(share.mul_(chroma).add_(low))  # a view: writes into `images`
    return images
