"""Inference: the outputs of a network for many photos, as validation and evaluation need them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lesions.common.progress import progress
from lesions.common.types import Rows
from lesions.networks.augmentation import to_float
from lesions.networks.batches import PhotoLoader, split_into_batches
from lesions.networks.classifier import Classifier

# Photos at a time, or training's batch size if that is smaller: what could be trained fits in
# memory. Fixed, because the bits of a result depend on it.
BATCH_SIZE = 32
VIEWS = ((), (2,), (3,), (2, 3))  # the axes that each view is mirrored along


class Outputs(NamedTuple):
    """The outputs of a network for n photos, in their order."""

    logits: npt.NDArray[np.float32]  # (n, classes)
    features: npt.NDArray[np.float32]  # (n, f), rows of length 1


def logits_and_features(
    classifier: Classifier, images: Tensor, views: int = 1
) -> tuple[Tensor, Tensor]:
    """Compute the logits of one or more mirrored views, averaged, and the features of the first.

    Args:
        classifier: its network is in evaluation mode.
        images: (b, 3, s, s) float32 in [0, 1]; overwritten.
        views: 1, or 4: as it is, mirrored upside down, left to right, and both.

    Returns:
        (b, classes) and (b, f), as `Classifier.logits_and_features`.
    """
    mirrored = [images.flip(axes) for axes in VIEWS[1:views]]
    logits, features = classifier.logits_and_features(images)
    for view in mirrored:
        logits = logits + classifier.logits(view)
    return logits / views, features


def run_inference(
    classifier: Classifier, loader: PhotoLoader, rows: Rows, views: int = 1
) -> Outputs:
    """Compute the logits and features of some photos, without augmentation.

    Args:
        classifier: its network is put into evaluation mode.
        loader: of the array of photos.
        rows: (n,) int64, which photos.
        views: as for `logits_and_features`.
    """
    classifier.network.eval()
    logits, features = [], []
    size = min(BATCH_SIZE, classifier.card.recipe.batch_size)
    batches = split_into_batches(rows, size)
    with torch.inference_mode(), progress(len(rows), "photos", "inference") as bar:
        for photos in loader(batches):
            batch_logits, batch_features = logits_and_features(classifier, to_float(photos), views)
            logits.append(batch_logits)
            features.append(batch_features)
            bar.update(len(photos))
        return Outputs(torch.cat(logits).cpu().numpy(), torch.cat(features).cpu().numpy())
