"""ONNX export: a model file for programs without torch, checked against torch."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from lesions.common import layout
from lesions.common.artifacts import atomic_write
from lesions.common.errors import LesionsError
from lesions.common.params import Decision
from lesions.common.types import Pixels
from lesions.dataset.metadata import read_table
from lesions.dataset.photos import PhotoArray
from lesions.networks import model_file
from lesions.networks.classifier import Classifier
from lesions.networks.hardware import Hardware
from lesions.scoring.metrics import rounded_key_metrics
from lesions.sources.sample import LESIONS, render_photo

if TYPE_CHECKING:  # the extra `export` is optional
    from onnxruntime import InferenceSession

TOLERANCE = 1e-4  # of a probability, between torch and ONNX, both in fp32
CHECKED = 64  # test photos, at most, that both predict
CALIBRATION = 256  # training photos from which the ranges of the 8-bit network are measured
BATCH_SIZE = 32
VIEWS = 1  # the graph predicts the photo as it is
# Other filters change predictions: of 120 photos, bicubic 9 and bilinear without antialias 2.
RESIZE = "whole photo to a square; triangle filter with antialiasing (Pillow's BILINEAR)"


class _EndToEnd(nn.Module):
    """Normalisation, network and calibration as one module."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        card = classifier.card
        self.network = classifier.network.to(memory_format=torch.contiguous_format)
        fitted = card.use(VIEWS)
        self.temperature = fitted.temperature
        self.bias = nn.Buffer(torch.tensor(fitted.bias))
        self.mean = nn.Buffer(torch.tensor(card.mean).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(card.std).view(1, 3, 1, 1))

    def forward(self, photos: Tensor) -> Tensor:
        logits = self.network((photos - self.mean) / self.std)
        return torch.softmax(logits / self.temperature + self.bias, dim=1)


def export_onnx(source: Path, target: Path, decision: Decision) -> str:
    """Write a model as ONNX and compare it with torch on test photos.

    The graph takes `photos`, (b, 3, s, s) float32 RGB in [0, 1] with any b, and returns
    `probabilities`, (b, classes). Normalisation and calibration are part of it.

    Args:
        source: the model file.
        target: the ONNX file.
        decision: noted in its metadata, for the program that uses it.

    Returns:
        Lines to print: the largest difference, and the latency of both at batch sizes 1 and 32.

    Raises:
        LesionsError: the extra `export` is not installed, or the two differ by over 1e-4.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise LesionsError(
            f"{error.name} is not installed. pip install -c constraints.txt -e '.[export]'"
        ) from None

    # Export, with the model card as metadata.
    classifier = model_file.load(source, Hardware(torch.device("cpu"), "fp32")).classifier
    card = classifier.card
    module = _EndToEnd(classifier).eval()
    program = torch.onnx.export(
        module,
        (torch.rand(2, 3, card.image_size, card.image_size),),
        input_names=["photos"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    # The card has the rest: prevalence, operating points, flags.
    metadata = {"classes": json.dumps(card.classes), "decision": decision, "resize": RESIZE}
    onnx.helper.set_model_props(model, {**metadata, "card": card.model_dump_json()})

    # Compare with torch; keep the file only if both agree.
    photos, origin = _photos_to_check(card.image_size)

    def by_torch(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(batch)).numpy())

    with atomic_write(target) as temporary:
        onnx.save(model, temporary)
        session = open_session(temporary)
        difference = float(np.abs(by_torch(photos) - predict_onnx(session, photos)).max())
        text = f"probabilities of {len(photos)} {origin} photos differ from torch's by at most"
        if difference > TOLERANCE:
            raise LesionsError(f"{target}: {text} {difference:.1e}; {TOLERANCE:g} are allowed.")

    # Measure the latency of both.
    lines = [f"{target}: {target.stat().st_size / 1e6:.1f} MB; {text} {difference:.1e}"]
    for size in (1, BATCH_SIZE):
        batch = np.resize(photos, (size, *photos.shape[1:]))
        of_torch = _milliseconds(by_torch, batch)
        of_onnx = _milliseconds(partial(predict_onnx, session), batch)
        lines.append(f"batch size {size}: torch {of_torch:.1f} ms, ONNX {of_onnx:.1f} ms")
    return "\n".join(lines)


def export_int8(source: Path, target: Path, small: Path, decision: Decision) -> str:
    """Write an ONNX file of 8-bit integers, and compare it with the other on the test set.

    Static quantisation by onnxruntime, one scale per channel, ranges from training photos.

    Args:
        source: the model file.
        target: the ONNX file that `export_onnx` wrote.
        small: the file to write.
        decision: which class to predict, given the probabilities.

    Returns:
        Lines to print: size, latency at batch size 1, and the key metrics of both.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Training photos for the ranges.
    card = model_file.read_card(source)
    size = card.image_size
    array, train = _read_subset(size, layout.TRAIN_TABLE)
    chosen = array.rows(train["image_id"].sample(min(CALIBRATION, len(train)), random_state=0))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.split(chosen, range(16, len(chosen), 16)))

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            rows = next(self.batches, None)
            return None if rows is None else {"photos": _to_float(array.images[rows])}

    # Quantise.
    with atomic_write(small) as temporary:
        prepared = temporary.with_suffix(".prepared")
        try:
            quant_pre_process(target, prepared)
            quantize_static(
                prepared, temporary, Reader(), per_channel=True, weight_type=QuantType.QInt8
            )
        finally:
            prepared.unlink(missing_ok=True)

    # Compare both on the test set.
    array, test = _read_subset(size, layout.TEST_TABLE)
    rows, labels = array.rows(test["image_id"]), card.dataset.labels_of(test["dx"])
    metrics, latency = {}, {}
    for path in (target, small):
        session = open_session(path)
        batches = np.split(rows, range(BATCH_SIZE, len(rows), BATCH_SIZE))
        probabilities = np.concatenate(
            [predict_onnx(session, _to_float(array.images[part])) for part in batches]
        )
        predicted = card.use(VIEWS).decide(probabilities, decision)
        metrics[path.name] = rounded_key_metrics(probabilities, predicted, labels, card.dataset)
        one = _to_float(array.images[rows[:1]])
        latency[path.name] = _milliseconds(partial(predict_onnx, session), one)
    table = pd.DataFrame(metrics)
    table["difference"] = (table[small.name] - table[target.name]).round(4)
    return (
        f"{small}: {small.stat().st_size / 1e6:.1f} MB; batch size 1: {latency[small.name]:.1f} ms "
        f"(fp32 {latency[target.name]:.1f}); on {len(rows)} test photos\n{table.to_string()}"
    )


def open_session(path: Path) -> "InferenceSession":
    """Open an ONNX file for inference on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def predict_onnx(
    session: "InferenceSession", photos: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Turn (b, 3, s, s) float32 in [0, 1] into (b, classes) probabilities."""
    result: npt.NDArray[np.float32] = session.run(["probabilities"], {"photos": photos})[0]
    return result


def _to_float(photos: Pixels) -> npt.NDArray[np.float32]:
    """Turn (b, s, s, 3) uint8 into (b, 3, s, s) float32 in [0, 1]."""
    return np.ascontiguousarray(photos.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def _read_subset(size: int, table: Path) -> tuple[PhotoArray, pd.DataFrame]:
    """Read one subset of the split, and the photos, which must have the model's size."""
    array = PhotoArray(layout.RESIZED)
    if array.size != size:
        raise LesionsError(
            f"{layout.RESIZED}: has photos of {array.size} px, but the model needs {size} px. "
            "Run `dvc repro`."
        )
    return array, read_table(table, "image_id", "lesion_id", "dx")


def _photos_to_check(size: int) -> tuple[npt.NDArray[np.float32], str]:
    """Get photos for the comparison: from the test set, or synthetic ones if there is none."""
    if layout.RESIZED.exists():
        array, test = _read_subset(size, layout.TEST_TABLE)
        return _to_float(array.images[array.rows(test["image_id"][:CHECKED])]), "test"
    photos = [render_photo(code, 0, 0, 0).resize((size, size)) for code in LESIONS]
    return _to_float(np.stack([np.asarray(photo) for photo in photos])), "synthetic"


def _milliseconds(
    predict: Callable[[npt.NDArray[np.float32]], object], batch: npt.NDArray[np.float32]
) -> float:
    predict(batch)  # warm up
    times = []
    for _ in range(9):
        start = time.perf_counter()
        predict(batch)
        times.append(1000 * (time.perf_counter() - start))
    return median(times)
