import numpy as np
import pytest
import torch
from helpers import FP32, PARAMS, card_of, classifier_of

from lesions.networks.classifier import Classifier
from lesions.reporting.heatmaps import contours, grad_cam, overlay

SIZE = 128  # the smallest with 4×4 cells


@pytest.mark.parametrize("name", PARAMS.networks)
def test_heat_maps_have_the_photos_shape_and_range(name: str) -> None:
    classifier = classifier_of(name)
    found = grad_cam(classifier, np.zeros((2, SIZE, SIZE, 3), np.uint8), [0, 5])
    assert found is not None
    assert found.shape == (2, SIZE, SIZE)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    assert all(not parameter.grad for parameter in classifier.network.parameters())


def test_heat_is_where_the_prediction_comes_from() -> None:
    # A network that predicts by the brightness of the left half looks only at the left half.
    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = torch.nn.AvgPool2d(16)
            self.head = torch.nn.Linear(3 * 64, 7, bias=False)
            weight = torch.zeros(7, 3, 8, 8)
            weight[4, :, :, :4] = 1
            self.head.weight = torch.nn.Parameter(weight.flatten(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(self.features(images).flatten(1))
            return found

    card = card_of(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    photo = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    photo[0, 32:64, 16:48] = 255
    found = grad_cam(Classifier(Left(), card, FP32), photo, [4])
    assert found is not None
    heat = found[0]
    assert heat[40:56, 24:40].mean() > 0.9
    assert heat[:, 80:].max() == 0


def test_an_overlay_changes_only_where_there_is_heat() -> None:
    photo = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    heat = np.zeros((SIZE, SIZE), np.float32)
    np.testing.assert_array_equal(overlay(photo, heat), photo)
    heat[:9] = 1
    mixed = overlay(photo, heat)
    assert (mixed[:9] != photo[:9]).mean() > 0.9
    np.testing.assert_array_equal(mixed[9:], photo[9:])


def test_fewer_than_four_cells_give_no_heat_map() -> None:
    photos = np.zeros((1, SIZE // 2, SIZE // 2, 3), np.uint8)
    assert grad_cam(classifier_of("mobilenetv2"), photos, [0]) is None


def test_contours_surround_the_heat_in_the_proportions_of_the_photo() -> None:
    heat = np.zeros((SIZE, SIZE), np.float32)
    heat[32:64, 64:96] = 1
    path = contours(heat, 400, 300)
    points = np.array([line.split() for line in path.removeprefix("M").split("L")], dtype=float)
    # Half a pixel of the map beyond the square, at most.
    np.testing.assert_allclose(points.min(axis=0), [64 * 400 / 127, 32 * 300 / 127], atol=3)
    np.testing.assert_allclose(points.max(axis=0), [95 * 400 / 127, 63 * 300 / 127], atol=3)
    assert contours(np.zeros_like(heat), 400, 300) == ""
