from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import CODES, PARAMS, classifier_of, random_predictions

from lesions.common.params import Params
from lesions.evaluation.predictions import as_table
from lesions.reporting import pictures

SIZE = 64


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (30, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    return as_table(random_predictions(30)).assign(row=range(30))


def test_the_augmented_sheet_has_one_row_per_diagnosis(
    images: np.ndarray, params: Params, tmp_path: Path
) -> None:
    rows = pd.DataFrame({"dx": [CODES[k % 3] for k in range(30)], "row": range(30)})
    figure = pictures.augmented_photos(images, rows, CODES, params.augment, 0)
    assert [axis.get_ylabel() for axis in figure.axes[::6]] == list(CODES[:3])
    assert all(axis.images for axis in figure.axes)
    again = pictures.augmented_photos(images, rows, CODES, params.augment, 0)
    pictures.write_picture(tmp_path / "a.png", figure)
    pictures.write_picture(tmp_path / "b.png", again)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_extreme_cases_by_hand(images: np.ndarray, predictions: pd.DataFrame) -> None:
    figure = pictures.extreme_cases(images, {"A model": predictions}, count=2)
    confidence = predictions[list(CODES)].max(axis=1)
    wrong = predictions["actual"] != predictions["predicted"]
    worst = int(confidence.where(wrong).argmax())
    closest = int(confidence.where(~wrong).argmin())
    assert figure.axes[0].get_ylabel() == "A model\nwrong"
    for axis, row in ((figure.axes[0], worst), (figure.axes[2], closest)):
        actual, predicted = predictions["actual"][row], predictions["predicted"][row]
        assert axis.get_title() == f"actual {actual}\n{predicted} {confidence[row]:.2f}"
        np.testing.assert_array_equal(axis.images[0].get_array(), images[row])


def test_every_model_has_a_heat_map_below_each_photo(
    images: np.ndarray, predictions: pd.DataFrame
) -> None:
    classifiers = [classifier_of(name) for name in PARAMS.networks]
    others = predictions.assign(predicted="df")
    small = pictures.heatmap_sheet(classifiers, images, [predictions, others], per_class=1)
    assert small.axes[7].get_ylabel() == "ResNet50\n(too small)"
    images = images.repeat(4, axis=1).repeat(4, axis=2)  # with 4×4 cells
    figure = pictures.heatmap_sheet(classifiers, images, [predictions, others], per_class=1)
    assert len(figure.axes) == 3 * 7 + 1
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == [
        "does not support it",
        "supports it most",
    ]
    assert [axis.get_title() for axis in figure.axes[:7]] == list(CODES)
    assert [axis.get_ylabel() for axis in figure.axes[7:-1:7]] == ["ResNet50", "MobileNetV2"]
    assert [axis.get_title() for axis in figure.axes[14:-1]] == ["df"] * 7
    assert all(axis.images for axis in figure.axes[:-1])
    # If a diagnosis has one photo, there is no second, half-empty block.
    rare = predictions["actual"] == "df"
    one = predictions[~(rare & rare.cumsum().gt(1))].reset_index(drop=True)
    assert len(pictures.heatmap_sheet(classifiers, images, [one, one]).axes) == 3 * 7 + 1
