"""The model file: weights, feature subspace and model card as safetensors, with a checksum."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from lesions.common.artifacts import atomic_write
from lesions.common.errors import LesionsError
from lesions.common.types import Features
from lesions.networks.architectures import build
from lesions.networks.classifier import Classifier
from lesions.networks.hardware import Hardware
from lesions.networks.model_card import FORMAT, ModelCard

_KEY = "lesions"  # a single key, because safetensors writes several in no fixed order
_SUBSPACE = "subspace"  # the name of the one tensor that is not the network's
DTYPES = (torch.float32, torch.int64)  # of weights and buffers; of counters


@dataclass(frozen=True)
class TrainedModel:
    """What a model file holds, ready for inference."""

    classifier: Classifier
    subspace: Features  # as `out_of_distribution.fit_subspace` returns it


class _Header(BaseModel):
    """The metadata of a model file."""

    model_config = ConfigDict(extra="forbid")

    card: ModelCard
    sha256: str  # of the card and the tensors


def _digest(card: ModelCard, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(card.model_dump_json().encode())
    for key, value in sorted(tensors.items()):
        digest.update(key.encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()


def save(path: Path, state: dict[str, Tensor], subspace: Features, card: ModelCard) -> None:
    """Write a model file; the same content always gives the same bytes."""
    # Contiguous, because safetensors refuses other strides.
    tensors = {**state, _SUBSPACE: torch.from_numpy(subspace)}
    tensors = {key: value.cpu().contiguous() for key, value in sorted(tensors.items())}
    header = _Header(card=card, sha256=_digest(card, tensors))
    # Not by save_file: a kill would leave its own temporary file behind.
    content = to_bytes(tensors, metadata={_KEY: header.model_dump_json()})
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def load(path: Path, hardware: Hardware, expected: str | None = None) -> TrainedModel:
    """Read a model file and build its network, ready for inference.

    Args:
        path: the file.
        hardware: where to compute, and in which precision.
        expected: the name of the network that it must hold; by default any.

    Raises:
        LesionsError: the file is missing, damaged, of another version of this project, or holds
            another network.
    """
    header = _read_header(path)
    card = header.card
    if expected not in (None, card.name):
        raise LesionsError(
            f"{path}: holds {card.name}, not {expected}. Run `dvc repro --force train-{expected}`."
        )
    # The checksum first: building a network can take a minute.
    tensors = load_file(path)
    if wrong := [key for key, value in tensors.items() if value.dtype not in DTYPES]:
        raise LesionsError(
            f"{path}: {wrong[0]} has the type {tensors[wrong[0]].dtype}; this project writes "
            f"{', '.join(map(str, DTYPES))}. Train it again."
        )
    if _digest(card, tensors) != header.sha256:
        raise LesionsError(
            f"{path}: the content does not match its checksum: damaged or altered. Train it or "
            "download it again."
        )
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise LesionsError(f"{path}: has weights that are not finite. Train it again.")
    subspace = tensors.pop(_SUBSPACE, torch.empty(0)).float().numpy()
    network = build(card.network, len(card.classes), "random", 0)
    if differ := _shapes(tensors) ^ _shapes(network.state_dict()):
        raise LesionsError(
            f"{path}: its tensors do not fit {card.network.title} ({len(differ)} differ; the first "
            f"is {min(differ)[0]}). Train it again."
        )
    network.load_state_dict(tensors)
    width = _feature_width(network, card)
    if subspace.ndim != 2 or not len(subspace) or subspace.shape[1] != width:
        raise LesionsError(
            f"{path}: its feature subspace has shape {subspace.shape}, but {card.network.title} "
            f"has {width} features. Train it again."
        )
    network = network.eval().requires_grad_(False)
    return TrainedModel(classifier=Classifier(network, card, hardware), subspace=subspace)


def _shapes(tensors: dict[str, Tensor]) -> set[tuple[str, str, tuple[int, ...]]]:
    """List the name, type and shape of every tensor."""
    return {(key, str(value.dtype), tuple(value.shape)) for key, value in tensors.items()}


def _feature_width(network: torch.nn.Module, card: ModelCard) -> int:
    """Count the features of a network, with one image; some networks take only one size."""
    classifier = Classifier(network.eval(), card, Hardware(torch.device("cpu"), "fp32"))
    photo = torch.zeros(1, 3, card.image_size, card.image_size)
    with torch.inference_mode():
        return classifier.logits_and_features(photo)[1].shape[1]


def read_card(path: Path) -> ModelCard:
    """Read the model card of a model file.

    Raises:
        LesionsError: as `load`.
    """
    return _read_header(path).card


def _read_header(path: Path) -> _Header:
    """Read and check the metadata of a model file."""
    if not path.exists():
        raise LesionsError(f"{path}: not found. `dvc repro` trains it.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        text = metadata[_KEY]
        found = json.loads(text).get("card", {}).get("format")
        if found != FORMAT:
            raise LesionsError(
                f"{path}: a model file of format {found}; this version reads format {FORMAT}. "
                "Train the model again with this version, or use the version that made it."
            )
        header = _Header.model_validate_json(text)
    except (SafetensorError, OSError) as error:
        raise LesionsError(f"{path}: not a whole model file ({error}). Train it again.") from None
    except KeyError:
        raise LesionsError(
            f"{path}: a safetensors file of another program: it lacks the key {_KEY!r}."
        ) from None
    except ValidationError as error:
        wrong = error.errors()[0]
        found = "missing" if wrong["type"] == "missing" else f"{wrong['input']!r}: {wrong['msg']}"
        raise LesionsError(
            f"{path}: {'.'.join(map(str, wrong['loc']))} is {found[:200]}. Train the model again "
            "with this version."
        ) from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise LesionsError(f"{path}: its metadata is damaged ({error}). Train it again.") from None
    if not header.card.fitted:
        raise LesionsError(f"{path}: its training was not finished. Train it again.")
    return header
