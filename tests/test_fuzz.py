"""Damaged input of every kind is either handled or refused in words: no traceback, no hang.

`LESIONS_FUZZ=3000 pytest tests/test_fuzz.py` tries 3,000 mutations of each, new ones every time.
"""

import contextlib
import io
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from helpers import (
    CODES,
    DATASET,
    FP32,
    PUBLISHED,
    ROOT,
    SUBSPACE,
    card_of,
    metadata_of,
    network_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lesions.common.errors import LesionsError
from lesions.common.params import load_params
from lesions.dataset.balancing import balance
from lesions.dataset.description import load_description
from lesions.dataset.metadata import read_metadata
from lesions.dataset.photos import PhotoArray, decode
from lesions.dataset.splits import split
from lesions.networks import model_file
from lesions.sources.folders import as_metadata, read_folder

COUNT = os.environ.get("LESIONS_FUZZ")
tries = settings(
    max_examples=int(COUNT or 60),
    derandomize=COUNT is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TOKENS = [
    b"",
    b"\0",
    b"\xff\xfe",
    b'"',
    b",",
    b"\n",
    b"\r",
    b" ",
    b"nan",
    b"-1",
    b"1e999",
    b"9" * 40,
]
TOKENS += [b": ", b"{", b"[", b"&a ", b"*a", b"!!python/object/apply:os.abort []", b"<<: *a", b"\t"]
pytestmark = pytest.mark.slow


def damaged(original: bytes, head: int | None = None) -> st.SearchStrategy[bytes]:
    """Cut, replace and insert bytes in a few places, mostly among the first `head`."""
    end = len(original)
    place = st.integers(0, min(head or end, end)) | st.integers(0, end)
    cut = st.integers(0, 40) | st.just(end)
    edits = st.lists(
        st.tuples(place, cut, st.sampled_from(TOKENS) | st.binary(max_size=8)),
        min_size=1,
        max_size=6,
    )

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        content = original
        for start, count, put in changes:
            content = content[:start] + put + content[start + count :]
        return content

    return edits.map(apply)


@contextlib.contextmanager
def refused_in_words(name: str = "") -> Iterator[None]:
    """Accept what is handled, and what LesionsError refuses by its file's name, within 30 s."""

    def late(*_: object) -> None:
        raise TimeoutError("hangs")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow's, of damaged tags
            warnings.simplefilter("error", RuntimeWarning)
            yield
    except LesionsError as error:
        message = str(error)
    else:
        message = name
    finally:
        signal.alarm(0)
    assert name in message
    assert "Traceback" not in message


METADATA = metadata_of(dict.fromkeys(CODES, [1] * 8 + [3])).to_csv(index=False).encode()


@tries
@given(damaged(METADATA))
def test_metadata(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "metadata.csv"
    path.write_bytes(content)
    with refused_in_words():
        subsets = split(read_metadata(path, CODES), CODES, 0.1, 0.1, "once-photographed", 0)
        rows, _ = balance(subsets["train"], CODES, "multiply")
        assert len(rows) >= len(subsets["train"])
        assert not set(subsets["train"]["lesion_id"]) & set(subsets["test"]["lesion_id"])


@tries
@given(damaged(yaml.safe_dump(PUBLISHED, sort_keys=False).encode()))
def test_params(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "params.yaml"
    path.write_bytes(content)
    with refused_in_words("params.yaml"):
        assert load_params(path).epochs >= 1


def encoded(kind: str, **options: Any) -> bytes:
    ramp = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, kind, **options)
    return file.getvalue()


KINDS = {
    "jpeg": encoded("JPEG", quality=90),
    "progressive": encoded("JPEG", progressive=True),
    "png": encoded("PNG"),
    "tiff": encoded("TIFF", compression="tiff_lzw"),
    "bmp": encoded("BMP"),
    "webp": encoded("WEBP"),
}


@pytest.mark.parametrize("kind", KINDS)
@tries
@given(data=st.data())
def test_photos(kind: str, data: st.DataObject) -> None:
    content = data.draw(damaged(KINDS[kind]))
    with refused_in_words("photo.jpg"):
        pixels = decode(content, 32, "photo.jpg")
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    model_file.save(path, network_of("mobilenetv2").state_dict(), SUBSPACE, card_of())
    return path


@tries
@given(data=st.data())
def test_model_files(trained: Path, data: st.DataObject) -> None:
    whole = trained.read_bytes()
    content = data.draw(damaged(whole, head=40_000))
    path = trained.with_name("damaged.safetensors")
    path.write_bytes(content)
    with refused_in_words("damaged.safetensors"):
        model = model_file.load(path, FP32)
        assert model.classifier.card == card_of()
        found = {**model.classifier.network.state_dict(), "subspace": torch.from_numpy(SUBSPACE)}
        whole_state = safetensors.torch.load(whole)
        assert all(torch.equal(found[key], value) for key, value in whole_state.items())


@tries
@given(data=st.data())
def test_pixel_arrays(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "resized"
    folder.mkdir(exist_ok=True)
    file = io.BytesIO()
    np.save(file, np.zeros((3, 8, 8, 3), np.uint8))
    (folder / "images.npy").write_bytes(data.draw(damaged(file.getvalue(), head=128)))
    (folder / "image_ids.csv").write_bytes(data.draw(damaged(b"image_id\na\nb\nc\n")))
    with refused_in_words("resized"):
        array = PhotoArray(folder)
        assert array.images.shape == (len(array.images), array.size, array.size, 3)


TRUTH = b"image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\na,1.0,0,0,0,0,0,0\nb,0,1,0,0,0,0,0\n"


@tries
@given(damaged(TRUTH))
def test_ground_truth(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "truth"
    folder.mkdir(exist_ok=True)
    for name in "ab":
        (folder / f"{name}.jpg").write_bytes(b"")
    (folder / "truth.csv").write_bytes(content)
    with refused_in_words("truth"):
        assert set(as_metadata(read_folder(folder, {}), DATASET)["dx"]) <= set(CODES)


DESCRIPTION = (ROOT / "datasets/ham10000.yaml").read_bytes()


@tries
@given(damaged(DESCRIPTION))
def test_descriptions(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "mine.yaml"
    path.write_bytes(content)
    with refused_in_words("mine.yaml"):
        assert len(load_description(str(path)).entries) >= 2
