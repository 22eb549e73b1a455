import numpy as np
import pytest
import torch
from helpers import PARAMS, classifier_of


@pytest.mark.parametrize("name", PARAMS.networks)
def test_features_are_the_input_of_the_head(name: str) -> None:
    classifier = classifier_of(name)
    head = classifier.network.get_submodule("fc" if name == "resnet50" else "classifier")
    inputs: list[torch.Tensor] = []
    head.register_forward_hook(lambda module, given, made: inputs.append(given[0]))
    images = torch.rand(2, 3, 64, 64)
    logits, features = classifier.logits_and_features(images.clone())
    torch.testing.assert_close(features, torch.nn.functional.normalize(inputs[0]))
    torch.testing.assert_close(logits, classifier.logits(images))
    assert len(inputs) == 2


def test_photos_are_normalised_by_the_card() -> None:
    classifier = classifier_of()
    images = torch.rand(3, 3, 32, 32)
    mean = torch.tensor(classifier.card.mean).view(3, 1, 1)
    std = torch.tensor(classifier.card.std).view(3, 1, 1)
    by_hand = classifier.network((images - mean) / std)
    torch.testing.assert_close(classifier.logits(images), by_hand, atol=1e-5, rtol=1e-5)


def test_the_card_calibrates_the_logits() -> None:
    logits = np.array([[2.0, 0, 0, 0, 0, 0, 0]], np.float32)
    classifier = classifier_of(temperature=2.0)
    assert classifier.probabilities(logits)[0, 0] == pytest.approx(np.e / (np.e + 6))
    classifier = classifier_of(temperature=2.0, bias=(-1.0, 0, 0, 0, 0, 0, 0))
    assert classifier.probabilities(logits)[0, 0] == pytest.approx(1 / 7)
    assert classifier.probabilities(logits).sum() == pytest.approx(1)
