import numpy as np
import pytest
from helpers import SUBSPACE

from lesions.scoring.out_of_distribution import MAX_DIRECTIONS, distances, fit_subspace


def test_distances_by_hand() -> None:
    features = np.zeros((3, 1280), np.float32)
    features[:, 0] = 1  # the mean
    features[1, 1:3] = 5  # along both directions
    features[2, [2, 7, 8]] = 9, 3, 4
    np.testing.assert_allclose(distances(features, SUBSPACE), [0, 0, 5], atol=1e-6)


@pytest.mark.parametrize(("count", "expected"), [(200, MAX_DIRECTIONS), (20, 10)])
def test_a_subspace_is_orthonormal_and_never_larger_than_half_the_photos(
    count: int, expected: int
) -> None:
    features = np.random.default_rng(0).normal(size=(count, 64)).astype(np.float32)
    mean, *directions = fit_subspace(features)
    np.testing.assert_allclose(mean, features.mean(axis=0), atol=1e-6)
    assert len(directions) == expected
    np.testing.assert_allclose(np.inner(directions, directions), np.eye(expected), atol=1e-5)


def test_photos_in_the_subspace_are_near() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(2, 64))
    inside = (rng.normal(size=(100, 2)) @ plane).astype(np.float32)
    subspace = fit_subspace(inside[:80])
    outside = inside[80:] + rng.normal(size=(20, 64)).astype(np.float32)
    assert distances(inside[80:], subspace).max() < 1e-3 < distances(outside, subspace).min()
