import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CPU, classifier_of

from lesions.common.errors import LesionsError
from lesions.networks.batches import PhotoLoader
from lesions.training.last_layer import compute_features, find_last_layer, fit_last_layer


def sample(count: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, "pd.Series[str]"]:
    """Features of three classes, the first of which is common, on very different scales."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, count, p=[0.8, 0.15, 0.05])
    features = rng.normal(0, 1, (count, 20))
    features[:, :3] += 1.5 * np.eye(3)[labels]
    features = (features + 5) * 10.0 ** (np.arange(20) % 7 - 3)
    return features.astype(np.float32), labels, pd.Series([f"L{row // 2}" for row in range(count)])


def test_a_last_layer_is_fitted_to_balanced_classes() -> None:
    weights, biases = fit_last_layer(*sample(), classes=4)
    assert weights.shape == (4, 20)
    assert weights.dtype == np.float32
    features, labels, _ = sample(2000, seed=1)
    predicted = (features @ weights.T + biases).argmax(axis=1)
    sensitivities = [(predicted[labels == label] == label).mean() for label in range(3)]
    assert min(sensitivities) > 0.6  # the rare ones as well as the common one
    assert 3 not in predicted  # a class without photos


def test_features_of_any_size_count_but_constant_ones() -> None:
    # Those of a network with random weights can be tiny.
    features, labels, groups = sample()
    weights, biases = fit_last_layer(features, labels, groups, classes=3)
    small, small_biases = fit_last_layer(features * np.float32(1e-12), labels, groups, classes=3)
    logits = features @ weights.T + biases
    np.testing.assert_allclose(features * 1e-12 @ small.T + small_biases, logits, atol=0.05)
    constant = np.full_like(features[:, :1], 7)
    wider = np.concatenate([features, constant], axis=1)
    weights, _ = fit_last_layer(wider, labels, groups, classes=3)
    assert not weights[:, -1].any()


def test_two_classes_are_fitted_too() -> None:
    features, labels, groups = sample()
    weights, biases = fit_last_layer(features, np.minimum(labels, 1), groups, classes=2)
    predicted = (features @ weights.T + biases).argmax(axis=1)
    assert (predicted == np.minimum(labels, 1)).mean() > 0.75


def test_noise_gets_the_strongest_penalty() -> None:
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(0, 1, (200, 50)).astype(np.float32), rng.integers(0, 2, 200)
    groups = pd.Series([f"L{row}" for row in range(200)])
    weights, _ = fit_last_layer(noise, labels, groups, classes=2)
    assert np.abs(weights).max() < 0.02


def test_the_features_are_what_the_last_layer_gets() -> None:
    classifier = classifier_of()
    images = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    loader = PhotoLoader(images, CPU)
    features = compute_features(classifier, loader, np.array([4, 1]))
    assert features.shape == (2, 1280)
    layer = find_last_layer(classifier.network, "x")
    photos = torch.from_numpy(images[[4, 1]]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = classifier.logits(photos.clone())
        torch.testing.assert_close(
            layer(torch.from_numpy(features)), expected, atol=1e-5, rtol=1e-5
        )


def test_a_network_without_a_last_linear_layer_is_refused() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Conv2d(1, 1, 1))
    with pytest.raises(LesionsError, match="SqueezeNet: its last layer is Conv2d, not Linear"):
        find_last_layer(network, "SqueezeNet")
