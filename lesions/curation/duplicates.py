"""Duplicates: photos that show one lesion under different ids.

Photos of one lesion are shifted, turned, scaled and lit otherwise, so they are found in two steps.
The features of a network choose the most similar photos of each photo. Then local features (SIFT,
Lowe 2004, doi 10.1023/B:VISI.0000029664.99615.94; compared as RootSIFT, Arandjelović and Zisserman
2012, doi 10.1109/CVPR.2012.6248018) must agree on one shift, rotation and scale (RANSAC).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import Tensor

from lesions.common.errors import LesionsError
from lesions.common.params import NetworkSpec
from lesions.common.progress import progress
from lesions.common.threads import thread_pool
from lesions.common.types import Features, Pixels
from lesions.dataset.photos import decode_in_proportion, read_file
from lesions.networks import architectures, hardware, model_file
from lesions.networks.augmentation import to_float
from lesions.networks.inference import BATCH_SIZE

IMAGENET = "imagenet"  # the network that was not trained here
IMAGENET_NETWORK = NetworkSpec(title="MobileNetV2", torchvision="mobilenet_v2", features="features")
IMAGENET_SIZE = 160  # pixels; at 224 it takes twice as long
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIMILAR = 25  # photos whose local features are compared with those of a photo

LONGEST = 320  # pixels of the photos that local features are computed of
KEYPOINTS = 300  # of a photo, at most
RATIO = 0.85  # of the distances to the nearest and the second nearest local feature (Lowe)
TOLERANCE = 6.0  # pixels between a point and where shift, rotation and scale put it
SCALES = (0.4, 2.5)  # of one photo relative to the other
# Points of two photos can agree along a line: on the marks of a printed scale, or on a hair. Then
# their standard deviation across the line is small. As a share of LONGEST:
LINE = 0.02

Embed = Callable[[Tensor], Tensor]  # from (b, 3, s, s) float32 in [0, 1] to (b, f)


class LocalFeatures(NamedTuple):
    """The keypoints of one photo."""

    points: Features  # (k, 2), x and y
    descriptors: npt.NDArray[np.uint8]  # (k, 128), square roots of shares, times 255


class Pair(NamedTuple):
    """Two photos, by their index, and how many points agree: more is more certain."""

    first: int
    second: int
    points: int


class Described(NamedTuple):
    """What the comparison needs of each photo that could be read."""

    paths: list[Path]
    features: Features  # (n, f)
    local: list[LocalFeatures]
    errors: list[str]  # one per photo that could not be read


def load_network(name: str) -> tuple[int, Embed]:
    """Load the network that makes features.

    Args:
        name: IMAGENET, or the path of a model file.

    Returns:
        The side of its photos in pixels, and the function that computes features.
    """
    device = hardware.set_up("auto", "auto", deterministic=True).device
    if name != IMAGENET:
        path = Path(name)
        used = hardware.Hardware(device, "fp32")
        classifier = model_file.load(path, used).classifier
        return (
            classifier.card.image_size,
            lambda images: classifier.logits_and_features(images.to(device))[1],
        )
    network = architectures.build(IMAGENET_NETWORK, 2, "imagenet", 0).eval().to(device)
    body = network.get_submodule(IMAGENET_NETWORK.features)
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)

    def embed(images: Tensor) -> Tensor:
        normalised = ((images.to(device) - mean) / std).contiguous(
            memory_format=torch.channels_last
        )
        maps: Tensor = body(normalised)
        return maps.mean(dim=(2, 3))

    return IMAGENET_SIZE, embed


def describe(paths: Sequence[Path], size: int, embed: Embed) -> Described:
    """Read photos, and compute the network's features and the local features of each.

    Args:
        paths: of the photos; one that cannot be read is left out, with its error.
        size, embed: from `load_network`.
    """
    known: list[tuple[Path, LocalFeatures]] = []
    features: list[Features] = []
    errors: list[str] = []

    def read(path: Path) -> tuple[Path, Pixels, LocalFeatures] | LesionsError:
        try:
            photo = decode_in_proportion(read_file(path), LONGEST, str(path))
        except LesionsError as error:
            return error
        square = Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR)
        return path, np.array(square), local_features(photo)

    with thread_pool() as pool, progress(len(paths), "photos", "features") as bar:
        for start in range(0, len(paths), BATCH_SIZE):
            found = list(pool.map(read, paths[start : start + BATCH_SIZE]))
            errors += [str(one) for one in found if isinstance(one, LesionsError)]
            whole = [one for one in found if not isinstance(one, LesionsError)]
            if whole:
                known += [(path, local) for path, _, local in whole]
                squares = torch.from_numpy(np.stack([square for _, square, _ in whole]))
                with torch.inference_mode():
                    features.append(embed(to_float(squares)).float().cpu().numpy())
            bar.update(len(found))
    return Described(
        paths=[path for path, _ in known],
        features=np.concatenate(features) if features else np.empty((0, 0), np.float32),
        local=[local for _, local in known],
        errors=errors,
    )


def local_features(photo: Pixels) -> LocalFeatures:
    """Find keypoints in the grey photo, its contrast evened out, and describe them.

    Args:
        photo: (height, width, 3) uint8, RGB.
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    even = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4)).apply(grey)
    sift = cv2.SIFT_create(  # type: ignore[attr-defined]
        nfeatures=KEYPOINTS, contrastThreshold=0.01, edgeThreshold=20
    )
    found, descriptors = sift.detectAndCompute(even, None)
    if descriptors is None:
        return LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    # The square root of a share compares descriptors better than the share (RootSIFT).
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    points = np.array([keypoint.pt for keypoint in found], np.float32)
    return LocalFeatures(points, (np.sqrt(shares) * 255).round().astype(np.uint8))


def most_similar(features: Features, count: int = SIMILAR) -> list[tuple[int, int]]:
    """Pair each photo with those that look most alike to the network.

    Args:
        features: (n, f).
        count: photos for each, by the cosine of the standardised features.

    Returns:
        Pairs of indices, the smaller first, sorted, each once.
    """
    spread = features.std(axis=0)
    standardised = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    length = np.linalg.norm(standardised, axis=1, keepdims=True)
    standardised /= np.where(length > 0, length, 1)
    number, count = len(features), min(count, len(features) - 1)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, number, 512):
        cosines = standardised[start : start + 512] @ standardised.T
        own = np.arange(start, start + len(cosines))
        cosines[own - start, own] = -np.inf
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        pairs |= {
            (min(row, int(other)), max(row, int(other)))
            for row, others in zip(own.tolist(), nearest, strict=True)
            for other in others
        }
    return sorted(pairs)


def compare(local: Sequence[LocalFeatures], pairs: Sequence[tuple[int, int]]) -> list[Pair]:
    """Count the points that agree in each pair; the pairs with the most first."""
    found = []
    # With more threads, multiplying such small matrices takes ten times as long.
    with threadpool_limits(1), progress(len(pairs), "pairs", "compare") as bar:
        for first, second in pairs:
            found.append(Pair(first, second, agreeing_points(local[first], local[second])))
            bar.update()
    return sorted(found, key=lambda pair: (-pair.points, pair))


def agreeing_points(first: LocalFeatures, second: LocalFeatures) -> int:
    """Count the keypoints that one shift, rotation and scale takes from one photo to the other.

    0 if fewer than four keypoints match, if those that agree lie along a line or close together, or
    if the scales differ too much to be sure. Mirrored photos do not agree.
    """
    if min(len(first.points), len(second.points)) < 2:
        return 0
    # Mutual nearest neighbours that are clearly nearer than the second nearest.
    a, b = first.descriptors.astype(np.float32), second.descriptors.astype(np.float32)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    rows, nearest = np.arange(len(a)), squares.argmin(axis=1)
    best = squares[rows, nearest]
    mutual = squares.argmin(axis=0)[nearest] == rows
    squares[rows, nearest] = np.inf
    matching = mutual & (best < RATIO**2 * squares.min(axis=1))
    if matching.sum() < 4:
        return 0

    # The transformation that most of them agree on.
    source, target = first.points[matching], second.points[nearest[matching]]
    transformation, agree = cv2.estimateAffinePartial2D(
        source, target, ransacReprojThreshold=TOLERANCE, maxIters=500
    )
    if transformation is None:
        return 0
    scale = float(np.hypot(transformation[0, 0], transformation[0, 1]))
    agreeing = agree[:, 0] > 0
    if agreeing.sum() < 3 or not SCALES[0] < scale < SCALES[1]:
        return 0
    across = min(
        float(np.linalg.eigvalsh(np.cov(points[agreeing].T))[0]) for points in (source, target)
    )
    return int(agreeing.sum()) if across > (LINE * LONGEST) ** 2 else 0
