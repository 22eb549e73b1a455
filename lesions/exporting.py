"""Exporting: a model file as ONNX, for programs without torch, checked against torch."""

import json
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lesions import networks
from lesions.artifacts import replacing
from lesions.diagnoses import CODES, labels_of
from lesions.errors import LesionsError
from lesions.metadata import read_table
from lesions.photos import PhotoArray, Pixels
from lesions.sample import draw_photo

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TOLERANCE = 1e-4  # of a probability, between torch and ONNX, both in fp32
CHECKED = 64  # test photos, at most, that both are asked about
CALIBRATED = 256  # training photos that the ranges of the 8-bit network are measured on


def export_onnx(source: Path, target: Path) -> str:
    """Write a model as ONNX and say how it compares with torch on test photos.

    The graph takes `photos`, (b, 3, s, s) float32 RGB in [0, 1], b any, and gives
    `probabilities`, (b, 7), normalised and calibrated within.

    Args:
        source: the model file.
        target: the ONNX file.

    Returns:
        Lines to print: largest difference, and latency of both at batch 1 and 32.

    Raises:
        LesionsError: the extra `export` is not installed, or the two differ by over 1e-4.
    """
    import torch

    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise LesionsError(
            f"{error.name} is not installed. pip install -c constraints.txt -e '.[export]'"
        ) from None
    classifier = networks.load(source, torch.device("cpu"), bf16=False)
    card = classifier.card

    class Whole(torch.nn.Module):
        """Normalisation, network and calibration as one."""

        def __init__(self) -> None:
            super().__init__()
            self.network = classifier.network.to(memory_format=torch.contiguous_format)
            self.mean = torch.nn.Buffer(torch.tensor(card.mean).view(1, 3, 1, 1))
            self.std = torch.nn.Buffer(torch.tensor(card.std).view(1, 3, 1, 1))

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            logits = self.network((photos - self.mean) / self.std)
            return torch.softmax(logits / card.temperature, dim=1)

    example = torch.rand(2, 3, card.image_size, card.image_size)
    whole = Whole().eval()
    program = torch.onnx.export(
        whole,
        (example,),
        input_names=["photos"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    notes = {"classes": json.dumps(CODES), "temperature": str(card.temperature)}
    notes |= {"card": card.model_dump_json()}
    onnx.helper.set_model_props(model, notes)
    photos, origin = _photos_to_check(card.image_size)
    with torch.inference_mode():
        expected = whole(torch.from_numpy(photos)).numpy()
    with replacing(target) as partial:
        onnx.save(model, partial)
        session = open_session(partial)
        apart = float(np.abs(expected - ask(session, photos)).max())
        told = f"probabilities of {len(photos)} {origin} photos differ from torch's by at most"
        if apart > TOLERANCE:
            raise LesionsError(f"{target}: {told} {apart:.1e}; {TOLERANCE:g} are allowed.")
    lines = [f"{target}: {target.stat().st_size / 1e6:.1f} MB; {told} {apart:.1e}"]
    for size in (1, 32):
        batch = np.resize(photos, (size, *photos.shape[1:]))

        def by_torch(batch: npt.NDArray[np.float32] = batch) -> None:
            with torch.inference_mode():
                whole(torch.from_numpy(batch))

        def by_onnx(batch: npt.NDArray[np.float32] = batch) -> None:
            ask(session, batch)

        ours, theirs = _milliseconds(by_torch), _milliseconds(by_onnx)
        lines.append(f"batch {size}: torch {ours:.1f} ms, ONNX {theirs:.1f} ms")
    return "\n".join(lines)


def open_session(path: Path) -> "InferenceSession":
    """Open an ONNX file for inference on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def ask(session: "InferenceSession", photos: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Answer (b, 3, s, s) float32 in [0, 1] with (b, 7) probabilities."""
    answers: npt.NDArray[np.float32] = session.run(["probabilities"], {"photos": photos})[0]
    return answers


def _unit(photos: Pixels) -> npt.NDArray[np.float32]:
    """Turn (b, s, s, 3) uint8 into (b, 3, s, s) float32 in [0, 1]."""
    return np.ascontiguousarray(photos.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def _side(size: int, manifest: str) -> tuple[PhotoArray, pd.DataFrame]:
    """Find the photos of one side of the split, of the size that the model was trained on."""
    array = PhotoArray(Path("data/resized"))
    if array.size != size:
        raise LesionsError(
            f"data/resized: photos of {array.size} px for a model of {size} px. Run `dvc repro`."
        )
    return array, read_table(Path(manifest), "image_id", "lesion_id", "dx")


def _photos_to_check(size: int) -> tuple[npt.NDArray[np.float32], str]:
    """Find photos to ask torch and ONNX about: of the test set, or drawn where there is none."""
    if Path("data/resized").exists():
        array, test = _side(size, "data/split/test.csv")
        return _unit(array.images[array.rows(test["image_id"][:CHECKED])]), "test"
    drawn = [draw_photo(code, 0, 0, 0).resize((size, size)) for code in CODES]
    return _unit(np.stack([np.asarray(photo) for photo in drawn])), "drawn"


def _milliseconds(work: Any) -> float:
    work()
    times = []
    for _ in range(9):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


def export_int8(source: Path, target: Path) -> str:
    """Write an ONNX file of 8-bit integers beside `target` and say what that costs.

    Static quantisation by onnxruntime, a scale a channel, ranges measured on training photos.

    Returns:
        Lines to print: size, latency at batch 1, and every headline figure of both on the test set.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from lesions.answers import Answers
    from lesions.scoring import headline

    small = target.with_suffix(".int8.onnx")
    size = networks.read_card(source).image_size
    array, train = _side(size, "data/split/train.csv")
    chosen = array.rows(train["image_id"].sample(min(CALIBRATED, len(train)), random_state=0))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(np.split(chosen, range(16, len(chosen), 16)))

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            rows = next(self.left, None)
            return None if rows is None else {"photos": _unit(array.images[rows])}

    with replacing(small) as partial:
        prepared = partial.with_suffix(".prepared")
        try:
            quant_pre_process(target, prepared)
            quantize_static(
                prepared, partial, Reader(), per_channel=True, weight_type=QuantType.QInt8
            )
        finally:
            prepared.unlink(missing_ok=True)
    array, test = _side(size, "data/split/test.csv")
    rows, labels = array.rows(test["image_id"]), labels_of(test)
    figures, latency = {}, {}
    for path in (target, small):
        session = open_session(path)
        parts = np.split(rows, range(32, len(rows), 32))
        found = np.concatenate([ask(session, _unit(array.images[part])) for part in parts])
        figures[path.name] = headline(Answers(test, labels, found, found))
        one = _unit(array.images[rows[:1]])
        latency[path.name] = _milliseconds(lambda session=session, one=one: ask(session, one))
    table = pd.DataFrame(figures)
    table["difference"] = (table[small.name] - table[target.name]).round(4)
    return (
        f"{small}: {small.stat().st_size / 1e6:.1f} MB; batch 1: {latency[small.name]:.1f} ms "
        f"(fp32 {latency[target.name]:.1f}); on {len(rows)} test photos\n{table.to_string()}"
    )
