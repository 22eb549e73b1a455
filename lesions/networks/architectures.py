"""Networks of torchvision: how they are built and which weights they start from."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from lesions.common.errors import LesionsError
from lesions.common.params import NetworkSpec, StartingWeights

# From random weights, the running statistics of batch norm must follow weights that change fast.
# On the synthetic sample (40 steps), MobileNetV2 stays at chance on validation with torch's
# momentum of 0.1, and not with 0.3.
RANDOM_START_MOMENTUM = 0.3
LARGE = 224  # pixels


def build(network: NetworkSpec, classes: int, weights: StartingWeights, seed: int) -> nn.Module:
    """Make a network.

    Args:
        network: its entry in the table of networks.
        classes: how many outputs it has.
        weights: `imagenet` loads torchvision's weights into all layers but the head (the file is
            in $TORCH_HOME/hub/checkpoints, and downloaded there if it is missing); `random` none.
        seed: of the random weights.

    Raises:
        LesionsError: torchvision has no such network or submodule, or the weights cannot be
            loaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = _get_classifier(network.torchvision, classes)
            model.get_submodule(network.features)
        except (ValueError, AttributeError) as error:
            raise LesionsError(
                f"network {network.title}: torchvision {torchvision.__version__} does not have "
                f"{network.torchvision!r} with a submodule {network.features!r} ({error}). See "
                "torchvision.models.list_models()."
            ) from None
    for module in model.modules():
        # Autograd keeps a copy of what ReLU6 overwrites: 35 clones per step of MobileNetV2.
        if isinstance(module, nn.ReLU6):
            module.inplace = False
    if weights == "random":
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = RANDOM_START_MOMENTUM
        return model

    # All tensors must fit but those of the head, which has other classes.
    state = _load_imagenet_weights(network)
    own = model.state_dict()
    head = {key for key in own if key in state and state[key].shape != own[key].shape}
    body = {key: value for key, value in state.items() if key not in head}
    missing, unexpected = model.load_state_dict(body, strict=False)
    # Some published files lack num_batches_tracked, which no result depends on.
    missing = [k for k in missing if k not in head and not k.endswith("num_batches_tracked")]
    if missing or unexpected or not head:
        raise LesionsError(
            f"ImageNet weights of {network.title}: do not fit the network (missing {missing[:3]}, "
            f"unexpected {unexpected[:3]}). Delete the file in $TORCH_HOME/hub/checkpoints, and "
            "it will be downloaded again."
        )
    return model


def _get_classifier(name: str, classes: int) -> nn.Module:
    """Build a classifier of torchvision from random weights.

    Raises:
        ValueError: there is none of that name; models of other tasks would download weights.
    """
    if name not in torchvision.models.list_models(torchvision.models):
        raise ValueError("not a classifier of photos")
    model: nn.Module = torchvision.models.get_model(name, num_classes=classes)
    return model


def find_feature_map(torchvision_name: str, size: int) -> str:
    """Find the submodule that makes the last feature map, by a forward pass of two photos.

    It is the last one with an output of (b, channels, h, w), after which there are only pooling,
    normalisation and linear layers. Photos of at least LARGE pixels show it; smaller ones can leave
    a map of one position.

    Args:
        torchvision_name: for torchvision.models.get_model.
        size: side of the photos in pixels.

    Raises:
        LesionsError: torchvision has no such classifier, or it is not clear which submodule it is.
    """
    try:
        model = _get_classifier(torchvision_name, 3)
    except (ValueError, TypeError) as error:
        raise LesionsError(
            f"network {torchvision_name}: not a classifier of torchvision "
            f"{torchvision.__version__} ({error}). See torchvision.models.list_models()."
        ) from None
    ran: list[tuple[str, nn.Module, bool]] = []  # in the order in which they ended

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            is_map = isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1
            ran.append((name, module, is_map))

        return hook

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(note(name))
    try:
        with torch.no_grad():
            model.train()(torch.zeros(2, 3, size, size))
            ran.clear()
            output = model(torch.zeros(2, 3, max(size, LARGE), max(size, LARGE)))
    except (RuntimeError, AssertionError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise LesionsError(
            f"network {torchvision_name}: cannot use photos of {size} px ({why}). Choose another "
            "image_size or network."
        ) from None
    if not (isinstance(output, Tensor) and output.shape == (2, 3)):
        raise LesionsError(
            f"network {torchvision_name}: has other outputs than one value per class, which "
            "training cannot use. Choose another network."
        )
    last = max((number for number, (_, _, is_map) in enumerate(ran) if is_map), default=None)
    after = [] if last is None else [module for _, module, _ in ran[last + 1 :]]
    if last is None or any(isinstance(one, nn.Conv2d | nn.MultiheadAttention) for one in after):
        raise LesionsError(
            f"network {torchvision_name}: it is not clear which submodule makes the last feature "
            "map (b, channels, h, w). Name it: --features NAME. Transformers with one sequence of "
            "patches have none."
        )
    return ran[last][0]


def _imagenet_file(network: NetworkSpec) -> tuple[Any, Path]:
    """Find torchvision's weights and the file they are stored in.

    V1, because the original study used it.
    """
    weights = torchvision.models.get_model_weights(network.torchvision).IMAGENET1K_V1
    return weights, Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]


def imagenet_weights_hash(network: NetworkSpec) -> str:
    """Compute the first 16 hex digits of the SHA-256 of the file that `build` loads.

    torchvision does not verify a file that is already there. Its own files have the first eight
    digits in their name; if they differ, this prints a notice.
    """
    _, file = _imagenet_file(network)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    if not file.stem.endswith(digest[:8]):
        print(f"{file}: not torchvision's own file; its SHA-256 begins with {digest}")
    return digest


def _load_imagenet_weights(network: NetworkSpec) -> dict[str, Tensor]:
    """Load the weights through torchvision's API; only tensors are unpickled, never code."""
    weights, file = _imagenet_file(network)
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=True, check_hash=True, weights_only=True, map_location="cpu"
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        why = str(error).partition("\n")[0] or "it ends too early"
        raise LesionsError(
            f"{file}: not a whole weights file ({why}). Delete it, or replace it by {weights.url}"
        ) from None
    except OSError as error:
        raise LesionsError(
            f"ImageNet weights of {network.title}: {weights.url} cannot be downloaded ({error}). "
            f"Without internet, put that file at {file}, or set weights: random."
        ) from None
    return state
