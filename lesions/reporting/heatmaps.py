"""Heat maps: the regions of a photo that support a prediction."""

from collections.abc import Sequence

import contourpy
import numpy as np
import numpy.typing as npt
import torch

from lesions.common.types import Pixels
from lesions.networks.augmentation import to_float
from lesions.networks.classifier import Classifier

COLOUR = (0, 190, 255)  # of heat, RGB: a blue that skin does not have
OPACITY = 0.75  # where the heat is 1
MIN_CELLS = 4  # in a row of the last feature map; fewer say nothing about where
CONTOUR = 0.5  # the heat at which the browser's contours are drawn
NONE = "no heat maps: the last feature map has fewer than 4×4 cells"

HeatMap = npt.NDArray[np.float32]  # (s, s) in [0, 1], of one photo


def grad_cam(classifier: Classifier, photos: Pixels, labels: Sequence[int]) -> HeatMap | None:
    """Compute the regions that support a class in each photo, by Grad-CAM.

    Selvaraju et al. 2017 (arXiv 1610.02391), at the network's last feature map, by captum.

    Args:
        classifier: its network is convolutional.
        photos: (b, s, s, 3) uint8.
        labels: (b,) the class to explain.

    Returns:
        (b, s, s) float32 between 0 and 1, relative to the strongest place of each photo. None if
        the feature map has fewer than MIN_CELLS × MIN_CELLS cells.
    """
    from captum.attr import LayerAttribution, LayerGradCam  # 2 s, which most commands save

    device, network = classifier.device, classifier.network
    images = classifier.normalise(to_float(torch.from_numpy(photos).to(device)))
    cam = LayerGradCam(network, network.get_submodule(classifier.card.network.features))
    target = torch.tensor(list(labels), device=device)
    with torch.enable_grad():
        found = cam.attribute(images.requires_grad_(), target, relu_attributions=True)
    if min(found.shape[-2:]) < MIN_CELLS:
        return None
    size = photos.shape[1]
    scaled = LayerAttribution.interpolate(found, (size, size), "bilinear")[:, 0].detach().cpu()
    strongest = scaled.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return np.asarray((scaled / strongest).numpy())


def contours(heat_map: HeatMap, width: int, height: int) -> str:
    """Draw the lines around the regions of at least CONTOUR, as the path of an SVG.

    Args:
        heat_map: (s, s) in [0, 1].
        width, height: of the drawing that s × s is stretched to.
    """
    columns, rows = (np.linspace(0, side, len(heat_map)) for side in (width, height))
    found = contourpy.contour_generator(columns, rows, heat_map).lines(CONTOUR)
    return "".join(
        "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in np.asarray(line)[:: max(1, len(line) // 40)])
        for line in found
    )


def overlay(photo: Pixels, heat_map: HeatMap) -> Pixels:
    """Blend a heat map, (s, s) in [0, 1], over its photo, (s, s, 3) uint8: more heat, more blue."""
    share = OPACITY * heat_map[..., None]
    mixed: Pixels = (photo * (1 - share) + np.array(COLOUR) * share).round().astype(np.uint8)
    return mixed
