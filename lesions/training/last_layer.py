"""The last layer, fitted alone: class-balanced logistic regression on frozen features.

Kang et al. 2020, Decoupling representation and classifier for long-tailed recognition (arXiv
1910.09217): features that were learned from photos as they are drawn, and a classifier that is
fitted to balanced classes. On features that were not trained at all, the same gives a baseline.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from lesions.common.errors import LesionsError
from lesions.common.types import Features, Labels, Rows
from lesions.networks.batches import PhotoLoader
from lesions.networks.classifier import Classifier
from lesions.networks.inference import run_inference
from lesions.scoring.metrics import mean_of_known

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # tried as C, from the strongest penalty on
FOLDS = 5
STEPS = 200  # of one fit, at most
CONSTANT = 1e-5  # times its mean: a feature that varies less says nothing
ABSENT = -20.0  # logit of a class without training photos, beside those of the others around 0


def find_last_layer(network: nn.Module, title: str) -> nn.Linear:
    """Find the linear layer that makes the logits.

    Raises:
        LesionsError: the network's last module is another one.
    """
    *_, last = network.modules()
    if not isinstance(last, nn.Linear):
        raise LesionsError(
            f"{title}: its last layer is {type(last).__name__}, not Linear, so it cannot be fitted "
            "alone. Set head: trained and fit: all, or choose another network."
        )
    return last


def compute_features(classifier: Classifier, loader: PhotoLoader, rows: Rows) -> Features:
    """Compute what the last layer gets for some photos: (n, f) float32.

    Args:
        classifier: computes in fp32.
        loader: of the array of photos.
        rows: (n,) which photos.
    """
    found: list[Tensor] = []
    last = find_last_layer(classifier.network, classifier.card.network.title)
    hook = last.register_forward_pre_hook(lambda module, given: found.append(given[0].cpu()))
    try:
        run_inference(classifier, loader, rows)
    finally:
        hook.remove()
    return torch.cat(found).numpy()


def fit_last_layer(
    features: Features, labels: Labels, groups: "pd.Series[str]", classes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fit a linear layer, with a penalty chosen by cross-validation.

    Args:
        features: (n, f) of training photos, each once.
        labels: (n,) class indices.
        groups: (n,) the lesion or patient of each photo; none is in two folds.
        classes: how many there are.

    Returns:
        Weights, (classes, f), and biases, (classes,).
    """
    mean, std = features.mean(axis=0), features.std(axis=0)
    std = np.where(std > CONSTANT * np.abs(mean), std, np.inf)
    scaled = (features - mean) / std
    losses = np.zeros(len(PENALTIES))
    for fitting, held_out in GroupKFold(min(FOLDS, groups.nunique())).split(scaled, groups=groups):
        path = _regress(scaled[fitting], labels[fitting], classes, PENALTIES)
        for number, (weights, biases) in enumerate(path):
            logits = scaled[held_out] @ weights.T + biases
            losses[number] += _balanced_loss(logits, labels[held_out])
    chosen = int(losses.argmin())
    *_, (weights, biases) = _regress(scaled, labels, classes, PENALTIES[: chosen + 1])
    weights = weights / std
    return weights.astype(np.float32), (biases - weights @ mean).astype(np.float32)


def _regress(
    features: Features, labels: Labels, classes: int, penalties: Sequence[float]
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Fit class-balanced logistic regression with each penalty, the strongest first.

    Yields:
        Weights, (classes, f), and biases, (classes,).
    """
    present = np.unique(labels)
    # Each fit starts from the one before.
    model = LogisticRegression(class_weight="balanced", max_iter=STEPS, warm_start=True)
    for penalty in penalties:
        weights, biases = np.zeros((classes, features.shape[1])), np.full(classes, ABSENT)
        biases[present] = 0
        if len(present) > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # near the end is good enough
                model.set_params(C=penalty).fit(features, labels)
            coefficients, intercepts = model.coef_, model.intercept_
            if len(present) == 2:  # scikit-learn then gives the second class alone
                coefficients = np.concatenate([-coefficients, coefficients]) / 2
                intercepts = np.concatenate([-intercepts, intercepts]) / 2
            weights[present], biases[present] = coefficients, intercepts
        yield weights, biases


def _balanced_loss(logits: npt.NDArray[np.float64], labels: Labels) -> float:
    """Compute the cross-entropy of each class, averaged over the classes that occur."""
    of_photo = -torch.from_numpy(logits).log_softmax(1).numpy()[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=logits.shape[1])
    sums = np.bincount(labels, of_photo, logits.shape[1])
    means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return float(mean_of_known(means[None])[0])
