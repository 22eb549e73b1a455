"""The planted shortcut: rulers on the photos of one group, to teach what a network may learn.

The marks of a surgeon's pen have changed what a network predicts (Winkler et al. 2019, doi
10.1001/jamadermatol.2019.1735). Here such a mark is drawn on purpose, so the truth is known.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions.common.types import Pixels

PAPER, INK = (235, 232, 220), (40, 40, 45)
HEIGHT = 0.11  # of the ruler, as a share of the photo's
MARKS = 24  # along the whole width; every sixth is long


def draw_ruler(photos: Pixels) -> Pixels:
    """Draw a ruler along the lower edge of photos.

    Args:
        photos: (..., s, s, 3) uint8; not changed.

    Returns:
        A copy with the ruler, of the same shape.
    """
    ruled = np.array(photos)
    size = ruled.shape[-2]
    height = max(4, round(HEIGHT * size))
    ruled[..., -height:, :, :] = PAPER
    thick = max(1, size // 150)
    for mark in range(1, MARKS):
        left = round(mark * size / MARKS)
        long = height if mark % 6 == 0 else height // 2
        top = size - height
        ruled[..., top : top + long, left : left + thick, :] = INK
    return ruled


def choose_photos(
    train: pd.DataFrame, classes: Sequence[str], share: float, seed: int
) -> npt.NDArray[np.str_]:
    """Choose the training photos that get a ruler: a share of those of some classes.

    Args:
        train: image_id and dx; a photo may occur many times.
        classes: whose photos get rulers.
        share: of these photos, between 0 and 1.
        seed: of the choice. The order of rows in `train` does not matter.

    Returns:
        Their image_ids, sorted.
    """
    ids = np.unique(train.loc[train["dx"].isin(classes), "image_id"].to_numpy(dtype=str))
    chosen = np.random.default_rng(seed).permutation(len(ids))[: round(share * len(ids))]
    return ids[np.sort(chosen)]
