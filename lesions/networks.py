"""Networks: how they are built, what they start from, and the file that holds a trained one."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from lesions.artifacts import replacing
from lesions.diagnoses import CODES
from lesions.errors import LesionsError

if TYPE_CHECKING:
    from torch import Tensor, device, nn

# Our names and torchvision's (networks, and their weights: IMAGENET1K_V1, as the study's). A line
# here, a stage in dvc.yaml, and another model takes part.
ARCHITECTURES = {
    "resnet50": ("resnet50", "ResNet50_Weights"),
    "mobilenetv2": ("mobilenet_v2", "MobileNet_V2_Weights"),
}
# Running statistics of a network from random weights must keep up with weights that move fast: on
# the drawn sample (40 steps) torch's 0.1 leaves MobileNetV2 at chance on validation, 0.3 does not.
RANDOM_START_MOMENTUM = 0.3
_KEY = "lesions"  # one key: safetensors writes several in no fixed order


class ModelCard(BaseModel):
    """All that is needed to use a model file, and what made it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    architecture: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]  # of the training photos, pixels in [0, 1]
    std: tuple[float, float, float]
    temperature: float  # divides the logits; fitted on validation
    weights: str  # what training started from
    seed: int
    precision: str  # that training computed in
    device: str
    versions: dict[str, str]


def check_architecture(name: str) -> None:
    """Refuse the name of a network that is not in the table."""
    if name not in ARCHITECTURES:
        raise LesionsError(f"model {name!r} is unknown; known are {', '.join(ARCHITECTURES)}.")


def build(name: str, weights: Literal["imagenet", "random"], seed: int) -> "nn.Module":
    """Make a network with one output a diagnosis.

    Args:
        name: a key of ARCHITECTURES.
        weights: `imagenet` loads torchvision's weights for all but the head (from
            $TORCH_HOME/hub/checkpoints, fetched there if absent); `random` loads none.
        seed: of the first weights.

    Raises:
        LesionsError: the weights cannot be had or do not fit.
    """
    import torch
    import torchvision

    check_architecture(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = torchvision.models.get_model(
            ARCHITECTURES[name][0], num_classes=len(CODES)
        )
    if weights == "random":
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = RANDOM_START_MOMENTUM
    else:
        state = _imagenet_state(name)
        own = network.state_dict()
        head = {key for key in own if key in state and state[key].shape != own[key].shape}
        body = {key: value for key, value in state.items() if key not in head}
        missing, unexpected = network.load_state_dict(body, strict=False)
        # num_batches_tracked is absent from some published files and means nothing to the result
        missing = [k for k in missing if k not in head and not k.endswith("num_batches_tracked")]
        if missing or unexpected or not head:
            raise LesionsError(
                f"ImageNet weights of {name}: do not fit the network (missing {missing[:3]}, "
                f"unexpected {unexpected[:3]}). Delete the file in $TORCH_HOME/hub/checkpoints; "
                "it is then fetched again."
            )
    return network


def _imagenet_state(name: str) -> "dict[str, Tensor]":
    """Load torchvision's file through its weights API; never unpickles anything but tensors."""
    import pickle

    import torch
    import torchvision

    choice = getattr(torchvision.models, ARCHITECTURES[name][1]).IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / choice.url.rsplit("/", 1)[-1]
    try:
        state: dict[str, Tensor] = choice.get_state_dict(
            progress=True, check_hash=True, weights_only=True, map_location="cpu"
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        why = str(error).partition("\n")[0] or "it ends too early"
        raise LesionsError(
            f"{file}: no whole weights file ({why}). Delete it, or replace it by {choice.url}"
        ) from None
    except OSError as error:
        raise LesionsError(
            f"ImageNet weights of {name}: {choice.url} cannot be fetched ({error}). Without a "
            f"network, put that file at {file}, or set weights: random."
        ) from None
    return state


class Classifier:
    """A network, normalisation included: uint8 photos in, logits out."""

    def __init__(self, network: "nn.Module", card: ModelCard, place: "device", bf16: bool) -> None:
        """Move `network` to `place`; `bf16` makes it compute in bfloat16 where that is safe."""
        import torch

        self.card = card
        self.place = place
        self._bf16 = bf16
        self.network = network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean, self._std = (
            torch.tensor(values, device=place).view(1, 3, 1, 1) for values in (card.mean, card.std)
        )

    def logits(self, images: "Tensor") -> "Tensor":
        """Turn (b, 3, s, s) float32 in [0, 1] into (b, classes) float32; overwrites `images`."""
        import torch

        images = images.sub_(self._mean).div_(self._std)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self._bf16):
            output: Tensor = self.network(images)
        return output.float()

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Turn (n, classes) logits into calibrated probabilities; rows sum to 1."""
        from scipy.special import softmax

        result: npt.NDArray[np.float64] = softmax(
            logits.astype(np.float64) / self.card.temperature, axis=1
        )
        return result


def save(path: Path, state: "dict[str, Tensor]", card: ModelCard) -> None:
    """Write weights and card as safetensors; the same content gives the same bytes."""
    from safetensors.torch import save_file

    with replacing(path) as partial:
        # Contiguous, for safetensors refuses strides; read back in any memory format.
        tensors = {key: value.cpu().contiguous() for key, value in sorted(state.items())}
        save_file(tensors, partial, metadata={_KEY: card.model_dump_json()})


def load(path: Path, place: "device", bf16: bool) -> Classifier:
    """Read a model file and build what it holds, ready for inference.

    Raises:
        LesionsError: missing, truncated, or made for other classes or by another version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise LesionsError(f"{path}: not found. `dvc repro` trains it.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        card = ModelCard.model_validate_json(metadata[_KEY])
    except (SafetensorError, OSError) as error:
        raise LesionsError(f"{path}: not a whole model file ({error}). Train it again.") from None
    except KeyError:
        raise LesionsError(f"{path}: a safetensors file of another program: no {_KEY!r}.") from None
    except ValidationError as error:
        wrong = error.errors()[0]
        raise LesionsError(
            f"{path}: {'.'.join(map(str, wrong['loc']))} is {wrong['input']!r}: {wrong['msg']}. "
            "Train the model again with this version."
        ) from None
    if card.classes != CODES:
        raise LesionsError(
            f"{path}: made for the classes {', '.join(card.classes)}; this version tells "
            f"{', '.join(CODES)} apart. Train it again."
        )
    network = build(card.architecture, "random", 0)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise LesionsError(
            f"{path}: its tensors do not fit {card.architecture} "
            f"({' '.join(str(error).split())[:200]}). Train it again."
        ) from None
    return Classifier(network.eval().requires_grad_(False), card, place, bf16)


def versions() -> dict[str, str]:
    """Name the versions that a result depends on."""
    import torch
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
