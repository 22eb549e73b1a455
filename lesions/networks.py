"""Networks: how they are built, what they start from, and the file that holds a trained one."""

import hashlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from lesions.artifacts import replacing
from lesions.diagnoses import CODES
from lesions.errors import LesionsError

if TYPE_CHECKING:
    from torch import Tensor, device, nn


class Architecture(NamedTuple):
    """What torchvision calls a network and its parts."""

    title: str  # ours, for people
    network: str
    weights: str  # of which IMAGENET1K_V1 is taken, as the study did
    features: str  # the submodule whose output is the last feature map


# How another model takes part: README, To change it.
ARCHITECTURES = {
    "resnet50": Architecture("ResNet50", "resnet50", "ResNet50_Weights", "layer4"),
    "mobilenetv2": Architecture("MobileNetV2", "mobilenet_v2", "MobileNet_V2_Weights", "features"),
}
# Running statistics of a network from random weights must keep up with weights that move fast: on
# the drawn sample (40 steps) torch's 0.1 leaves MobileNetV2 at chance on validation, 0.3 does not.
RANDOM_START_MOMENTUM = 0.3
_KEY = "lesions"  # one key: safetensors writes several in no fixed order
_SUBSPACE = "subspace"  # the name of a tensor that is no network's


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
    doubt: float  # a probability that the answers to 95 % of the validation photos reach
    strange: float  # a distance from the training photos that 95 % of the validation photos keep
    weights: str  # what training started from
    seed: int
    recipe: dict[str, Any]  # the parameters of training
    observations: dict[str, int]  # of each diagnosis, as balanced
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
            ARCHITECTURES[name].network, num_classes=len(CODES)
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


def _imagenet(name: str) -> tuple[Any, Path]:
    """Find torchvision's weights and the file that they are loaded from."""
    import torch
    import torchvision

    choice = getattr(torchvision.models, ARCHITECTURES[name].weights).IMAGENET1K_V1
    return choice, Path(torch.hub.get_dir()) / "checkpoints" / choice.url.rsplit("/", 1)[-1]


def weights_digest(name: str) -> str:
    """Sum up the file of ImageNet weights that `build` has loaded: 16 hex digits of its SHA-256.

    What lies there already is loaded unverified; if it is not torchvision's own file, whose name
    ends in eight of these digits, that is said.
    """
    _, file = _imagenet(name)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    if not file.stem.endswith(digest[:8]):
        print(f"{file}: not torchvision's own file, its SHA-256 begins with {digest}")
    return digest


def _imagenet_state(name: str) -> "dict[str, Tensor]":
    """Load torchvision's file through its weights API; never unpickles anything but tensors."""
    import pickle

    choice, file = _imagenet(name)
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

    def __init__(
        self,
        network: "nn.Module",
        card: ModelCard,
        place: "device",
        bf16: bool,
        subspace: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Move `network` to `place`.

        Args:
            network: one of ARCHITECTURES.
            card: what it was or is trained with.
            place: where to compute.
            bf16: whether to compute in bfloat16 where that is safe.
            subspace: (1 + d, f), where the features of the training photos lie: their mean and d
                orthonormal directions; once trained.
        """
        import torch

        self.card = card
        self.place = place
        self._bf16 = bf16
        self.subspace = subspace
        self.network = network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean, self._std = (
            torch.tensor(values, device=place).view(1, 3, 1, 1) for values in (card.mean, card.std)
        )

    def normalise(self, images: "Tensor") -> "Tensor":
        """Turn (b, 3, s, s) float32 in [0, 1] into what the network takes; overwrites `images`."""
        import torch

        images = images.sub_(self._mean).div_(self._std)
        return images.contiguous(memory_format=torch.channels_last)

    def logits(self, images: "Tensor") -> "Tensor":
        """Turn (b, 3, s, s) float32 in [0, 1] into (b, classes) float32; overwrites `images`."""
        import torch

        with torch.autocast(self.place.type, torch.bfloat16, enabled=self._bf16):
            output: Tensor = self.network(self.normalise(images))
        return output.float()

    def look(self, images: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return what `logits` does and the features behind it: (b, f) float32 of length 1.

        They are the last feature map averaged over its places: what the head sees.
        """
        import torch

        maps: list[Tensor] = []
        last = self.network.get_submodule(ARCHITECTURES[self.card.architecture].features)
        hook = last.register_forward_hook(lambda module, given, made: maps.append(made))
        try:
            logits = self.logits(images)
        finally:
            hook.remove()
        return logits, torch.nn.functional.normalize(maps[0].float().mean(dim=(2, 3)))

    def distances(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Distance of features, (n, f), from the subspace of the training photos: (n,) in [0, 2].

        The residual of Wang et al. 2022 (ViM, arXiv 2203.10807).
        """
        assert self.subspace is not None
        away, directions = features - self.subspace[0], self.subspace[1:]
        rest: npt.NDArray[np.float32] = away - away @ directions.T @ directions
        return np.asarray(np.linalg.norm(rest, axis=1))

    def probabilities(
        self, logits: npt.NDArray[np.float32], temperature: float | None = None
    ) -> npt.NDArray[np.float64]:
        """Turn (n, classes) logits into probabilities, calibrated unless told otherwise."""
        from scipy.special import softmax

        result: npt.NDArray[np.float64] = softmax(
            logits.astype(np.float64) / (temperature or self.card.temperature), axis=1
        )
        return result


class _Header(BaseModel):
    """What stands in a model file beside its tensors."""

    model_config = ConfigDict(extra="forbid")

    card: ModelCard
    sha256: str  # of the card and the tensors


def _digest(card: ModelCard, state: "dict[str, Tensor]") -> str:
    digest = hashlib.sha256(card.model_dump_json().encode())
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()


def save(
    path: Path, state: "dict[str, Tensor]", subspace: npt.NDArray[np.float32], card: ModelCard
) -> None:
    """Write weights, subspace and card as safetensors; the same content gives the same bytes."""
    import torch
    from safetensors.torch import save as serialised

    # Contiguous, for safetensors refuses strides; read back in any memory format.
    whole = {**state, _SUBSPACE: torch.from_numpy(subspace)}
    tensors = {key: value.cpu().contiguous() for key, value in sorted(whole.items())}
    header = _Header(card=card, sha256=_digest(card, tensors))
    # Not by save_file, whose own temporary file a kill would leave behind.
    content = serialised(tensors, metadata={_KEY: header.model_dump_json()})
    with replacing(path) as partial:
        partial.write_bytes(content)


def load(path: Path, place: "device", bf16: bool, expected: str | None = None) -> Classifier:
    """Read a model file and build what it holds, ready for inference.

    Args:
        path: the file.
        place: where to compute.
        bf16: whether to compute in bfloat16.
        expected: the architecture that it must hold; any, if none is named.

    Raises:
        LesionsError: missing, truncated, or made for other classes, another architecture or by
            another version.
    """
    from safetensors.torch import load_file

    header = _read(path)
    card = header.card
    if expected not in (None, card.architecture):
        raise LesionsError(
            f"{path}: holds {card.architecture}, not {expected}. Run "
            f"`dvc repro --force train-{expected}`."
        )
    network = build(card.architecture, "random", 0)
    state = load_file(path)
    if _digest(card, state) != header.sha256:
        raise LesionsError(
            f"{path}: its content does not match its checksum: damaged or altered. Train it again, "
            "or fetch it again."
        )
    try:
        subspace = state.pop(_SUBSPACE).numpy()
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise LesionsError(
            f"{path}: its tensors do not fit {card.architecture} "
            f"({' '.join(str(error).split())[:200]}). Train it again."
        ) from None
    return Classifier(network.eval().requires_grad_(False), card, place, bf16, subspace)


def read_card(path: Path) -> ModelCard:
    """Read what a model file says of itself.

    Raises:
        LesionsError: as `load`.
    """
    return _read(path).card


def _read(path: Path) -> _Header:
    """Read and check the header of a model file."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise LesionsError(f"{path}: not found. `dvc repro` trains it.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        header = _Header.model_validate_json(metadata[_KEY])
    except (SafetensorError, OSError) as error:
        raise LesionsError(f"{path}: not a whole model file ({error}). Train it again.") from None
    except KeyError:
        raise LesionsError(f"{path}: a safetensors file of another program: no {_KEY!r}.") from None
    except ValidationError as error:
        wrong = error.errors()[0]
        found = "missing" if wrong["type"] == "missing" else f"{wrong['input']!r}: {wrong['msg']}"
        raise LesionsError(
            f"{path}: {'.'.join(map(str, wrong['loc']))} is {found[:200]}. Train the model again "
            "with this version."
        ) from None
    if header.card.classes != CODES:
        raise LesionsError(
            f"{path}: made for the classes {', '.join(header.card.classes)}; this version tells "
            f"{', '.join(CODES)} apart. Train it again."
        )
    return header


def versions() -> dict[str, str]:
    """Name the versions that a result depends on."""
    import torch
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
