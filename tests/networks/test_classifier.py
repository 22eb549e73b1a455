import pytest
import torch
from helpers import CPU, PARAMS, card_of, classifier_of, network_of

from lesions.networks.classifier import Classifier
from lesions.networks.hardware import Hardware, Precision


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


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("tf32", True)])
def test_fp32_is_fp32(precision: Precision, allowed: bool) -> None:
    # Whatever another classifier, or torch, has set before.
    torch.backends.cudnn.allow_tf32 = not allowed
    classifier = Classifier(network_of("mobilenetv2").eval(), card_of(), Hardware(CPU, precision))
    classifier.logits(torch.rand(2, 3, 32, 32))
    assert torch.backends.cudnn.allow_tf32 is allowed
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
