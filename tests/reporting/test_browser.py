import numpy as np

from lesions.reporting import browser


def test_neighbours_are_of_different_lesions_the_most_similar_first() -> None:
    angles = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    known = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    lesions = np.array(["a", "a", "b", "c", "d"])
    indices, similarities = next(browser.nearest_lesions(known[1:2], known, lesions))
    assert indices.tolist() == [1, 2, 3]  # not photo 0: lesion a has a more similar one
    np.testing.assert_allclose(similarities, np.cos([0, 0.1, 0.2]), atol=1e-6)
