"""Out-of-distribution photos: how far a photo's features lie from those of the training photos.

The residual of Wang et al. 2022, ViM: Out-Of-Distribution with Virtual-logit Matching
(arXiv 2203.10807).
"""

import numpy as np
import numpy.typing as npt

from lesions.common.types import Features  # rows of length 1

MAX_DIRECTIONS = 32  # 128 directions detect hardly more out-of-distribution photos
MAX_PHOTOS = 2048  # from which the directions are computed


def fit_subspace(features: Features) -> Features:
    """Find the subspace that the features of the training photos lie in.

    Args:
        features: (n, f) of training photos.

    Returns:
        (1 + d, f): their mean and their first d principal directions, which are orthonormal.
    """
    mean = features.mean(axis=0)
    directions = np.linalg.svd(features - mean, full_matrices=False)[2]
    return np.vstack([mean, directions[: min(MAX_DIRECTIONS, len(features) // 2)]])


def distances(features: Features, subspace: Features) -> npt.NDArray[np.float32]:
    """Compute the distance of features, (n, f), from a subspace, (1 + d, f): (n,) in [0, 2].

    >>> subspace = np.array([[0, 0, 0], [1, 0, 0]], np.float32)  # the first axis
    >>> distances(np.array([[9, 3, 4]], np.float32), subspace).tolist()
    [5.0]
    """
    centred, directions = features - subspace[0], subspace[1:]
    residual = centred - centred @ directions.T @ directions
    return np.asarray(np.linalg.norm(residual, axis=1))
