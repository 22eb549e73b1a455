import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import CODES, DATASET
from PIL import Image

from lesions.dataset.metadata import read_metadata
from lesions.sources import sample, teaching
from lesions.sources.download import download, expected_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data/raw with a small teaching sample."""
    raw = tmp_path_factory.mktemp("teaching")
    (raw / "images").mkdir()
    table = download("teaching", 0, 200, DATASET, raw / "images")
    table.to_csv(raw / "metadata.csv", index=False)
    return raw


def test_the_sample_can_be_read_and_has_the_expected_photos(folder: Path) -> None:
    table = read_metadata(folder / "metadata.csv", CODES)
    assert list(table.columns) == list(sample.COLUMNS)
    photos, text = expected_photos("teaching", 200, DATASET)
    assert table["dx"].value_counts().to_dict() == photos
    assert text == f"{len(table)} synthetic photos"
    assert [path.stem for path in sorted((folder / "images").iterdir())] == list(table["image_id"])
    with Image.open(folder / f"images/{table['image_id'][0]}.jpg") as photo:
        assert (photo.size, photo.mode, photo.format) == ((200, 150), "RGB", "JPEG")


def test_the_seed_decides_every_byte() -> None:
    def digest(seed: int) -> str:
        table = teaching._metadata(seed, 200)
        photos = [teaching.render_photo(look, seed, 1, 0).tobytes() for look in teaching.LOOKS]
        return hashlib.sha256(b"".join([table.to_csv().encode(), *photos])).hexdigest()

    assert digest(0) == digest(0) != digest(1)


def test_classes_are_imbalanced_and_half_of_the_lesions_have_several_photos() -> None:
    table = teaching._metadata(0, 1600)
    assert 1500 < len(table) < 1700
    shares = table["dx"].value_counts(normalize=True)
    for dx, share in teaching.SHARES.items():
        assert shares[dx] == pytest.approx(share, abs=0.01)
    assert sum(teaching.SHARES.values()) == pytest.approx(1)
    views = table["lesion_id"].value_counts()
    assert set(views) == {1, 2, 3}
    assert (views > 1).mean() == pytest.approx(0.5, abs=0.02)


def test_histology_confirms_the_atypical_lesions_and_no_others() -> None:
    table = teaching._metadata(1, 1600).drop_duplicates("lesion_id")
    atypical = table["look"] != table["dx"]
    assert (atypical == (table["dx_type"] == "histo")).all()
    for look, shares in teaching.ATYPICAL.items():
        for dx, share in shares.items():
            assert (table["look"][table["dx"] == dx] == look).mean() == pytest.approx(
                share, abs=0.02
            )
    assert not atypical[table["dx"].isin(["df", "vasc"])].any()


def test_the_look_and_not_the_diagnosis_decides_the_photo() -> None:
    table = teaching._metadata(2, 400)
    shared = table[table["look"] == "pigmented"]
    assert set(shared["dx"]) == {"bkl", "mel", "nv"}
    # The renderer is told the look, the lesion's number and the view: nothing of the diagnosis.
    numbers = shared.groupby("dx")["lesion"]
    assert numbers.min().max() < numbers.max().min()


def test_photos_of_one_lesion_are_more_alike_than_those_of_two() -> None:
    def colour(lesion: int, view: int) -> np.ndarray:
        photo = np.asarray(teaching.render_photo("pigmented", 0, lesion, view), dtype=float)
        return np.asarray(np.median(photo, axis=(0, 1)))  # of the skin

    first, second = (np.stack([colour(lesion, view) for lesion in range(8)]) for view in (0, 1))
    distances = pd.DataFrame(np.linalg.norm(first[:, None] - second, axis=2))
    assert np.diag(distances).mean() < 0.7 * distances.to_numpy()[~np.eye(8, dtype=bool)].mean()
