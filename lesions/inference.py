"""Inference: what a network makes of photos, as validation and evaluation both ask it."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lesions.augmentation import to_unit
from lesions.batches import Batches, Rows, cut
from lesions.networks import Classifier
from lesions.progress import progress

BATCH = 32  # fixed, for the bits of a result depend on it


class Seen(NamedTuple):
    """What a network makes of n photos, in their order."""

    logits: npt.NDArray[np.float32]  # (n, classes)
    features: npt.NDArray[np.float32]  # (n, f), rows of length 1


def predict(classifier: Classifier, batches: Batches, rows: Rows) -> Seen:
    """Compute the logits and features of some photos, unaugmented.

    Args:
        classifier: its network is put into evaluation mode.
        batches: of the array of photos.
        rows: (n,) int64, which photos.
    """
    import torch

    classifier.network.eval()
    logits, features = [], []
    parts = cut(rows, BATCH)
    with torch.inference_mode(), progress(len(rows), "photos", "infer") as bar:
        for photos in batches(parts):
            told = classifier.look(to_unit(photos))
            logits.append(told[0])
            features.append(told[1])
            bar.update(len(photos))
        return Seen(torch.cat(logits).cpu().numpy(), torch.cat(features).cpu().numpy())
