"""Inference: logits of photos, as validation and evaluation both compute them."""

import numpy as np
import numpy.typing as npt

from lesions.augmentation import to_unit
from lesions.batches import Batches, Rows, cut
from lesions.networks import Classifier
from lesions.progress import progress

BATCH = 32  # fixed, for the bits of a result depend on it


def predict(classifier: Classifier, batches: Batches, rows: Rows) -> npt.NDArray[np.float32]:
    """Compute the logits of some photos, unaugmented.

    Args:
        classifier: its network is put into evaluation mode.
        batches: of the array of photos.
        rows: (n,) int64, which photos.

    Returns:
        (n, classes) float32, in the order of `rows`.
    """
    import torch

    classifier.network.eval()
    found = []
    parts = cut(rows, BATCH)
    with torch.inference_mode(), progress(len(rows), "photos", "infer") as bar:
        for photos in batches(parts):
            found.append(classifier.logits(to_unit(photos)))
            bar.update(len(photos))
        logits: npt.NDArray[np.float32] = torch.cat(found).cpu().numpy()
    return logits
