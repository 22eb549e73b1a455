import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from helpers import CODES, generate_raw
from PIL import Image

from lesions.dataset.metadata import read_metadata
from lesions.sources import sample


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    few = {dx: (0, 1, 0) if dx == "mel" else (0, 0, 0) for dx in CODES}
    digests = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        generate_raw(seed, tmp_path / name, few)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        digests.append(hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_metadata_and_photos_fit(raw: Path) -> None:
    table = read_metadata(raw / "metadata.csv", CODES)
    assert [path.stem for path in sorted((raw / "images").iterdir())] == list(table["image_id"])
    assert (table["dx"].value_counts() == 4).all()
    with Image.open(raw / "images" / f"{table['image_id'][0]}.jpg") as image:
        assert (image.size, image.mode, image.format) == ((600, 450), "RGB", "JPEG")


def test_default_sample_is_unequal_and_has_lesions_seen_twice_and_thrice() -> None:
    table = sample._metadata(0, sample.LESIONS)
    counts = table["dx"].value_counts()
    assert counts.idxmax() == "nv"
    assert counts.max() >= 2 * counts.min()
    assert set(table["lesion_id"].value_counts()) == {1, 2, 3}
    assert 90 <= len(table) <= 110


def test_diagnoses_look_different_and_views_of_a_lesion_alike() -> None:
    def centre(dx: str, lesion: int, view: int) -> np.ndarray:
        pixels = np.array(sample.render_photo(dx, 0, lesion, view), dtype=float)
        return np.array(pixels[175:275, 250:350].mean(axis=(0, 1)))

    colours = pd.DataFrame({dx: centre(dx, 1, 0) for dx in CODES})
    gaps = [
        np.abs(colours[a] - colours[b]).max()
        for a in CODES
        for b in CODES
        if CODES.index(a) < CODES.index(b)
    ]
    assert min(gaps) > 8
    assert 0 < np.abs(centre("nv", 1, 0) - centre("nv", 1, 1)).max() < 45
