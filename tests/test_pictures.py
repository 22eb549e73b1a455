from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import random_answers
from matplotlib.patches import Rectangle
from PIL import Image
from test_networks import card

from lesions import networks, pictures
from lesions.answers import predictions
from lesions.diagnoses import CODES
from lesions.params import Params

SIZE = 64


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (30, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def answers() -> pd.DataFrame:
    return predictions(random_answers(30)).assign(row=range(30))


def test_augmented_sheet_has_a_row_a_diagnosis(
    images: np.ndarray, params: Params, tmp_path: Path
) -> None:
    rows = pd.DataFrame({"dx": [CODES[k % 3] for k in range(30)], "row": range(30)})
    figure = pictures.augmented(images, rows, params.augment, 0)
    assert [axis.get_ylabel() for axis in figure.axes[::6]] == list(CODES[:3])
    assert all(axis.images for axis in figure.axes)
    again = pictures.augmented(images, rows, params.augment, 0)
    pictures.write(tmp_path / "a.png", figure)
    pictures.write(tmp_path / "b.png", again)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_telling_photos_by_hand(images: np.ndarray, answers: pd.DataFrame) -> None:
    figure = pictures.telling(images, answers, "A model", count=2)
    sure = answers[list(CODES)].max(axis=1)
    wrong = answers["actual"] != answers["predicted"]
    worst, barely = int(sure.where(wrong).argmax()), int(sure.where(~wrong).argmin())
    for axis, row in ((figure.axes[0], worst), (figure.axes[2], barely)):
        actual, predicted = answers["actual"][row], answers["predicted"][row]
        assert axis.get_title() == f"{actual}, said\n{predicted} {sure[row]:.2f}"
        np.testing.assert_array_equal(axis.images[0].get_array(), images[row])


def test_a_picture_keeps_the_colours_of_the_diagnoses(
    images: np.ndarray, answers: pd.DataFrame, tmp_path: Path
) -> None:
    rows = pd.DataFrame({"dx": [CODES[k % 7] for k in range(30)], "row": range(30)})
    figure = pictures._grid(7, 1, "")
    for axis, code in zip(figure.axes, CODES, strict=True):
        axis.imshow(images[rows["row"][0]])
        axis.add_patch(Rectangle((0, 0), 9, 9, color=pictures.COLOURS[code]))
    pictures.write(tmp_path / "picture.png", figure)
    with Image.open(tmp_path / "picture.png") as picture:
        seen = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    for code, colour in pictures.COLOURS.items():
        assert tuple(bytes.fromhex(colour[1:])) in seen, code


@pytest.mark.parametrize("name", networks.ARCHITECTURES)
def test_heat_is_where_the_answer_comes_from(name: str) -> None:
    network = networks.build(name, "random", 0).eval()
    cpu = torch.device("cpu")
    classifier = networks.Classifier(network, card(architecture=name), cpu, False)
    black = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    found = pictures.heat(classifier, black, [0, 5])
    assert found.shape == (2, SIZE, SIZE)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    assert all(not parameter.grad for parameter in network.parameters())


def test_heat_by_hand() -> None:
    # Of a network that answers by how bright the left half is, only the left half is warm.
    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = torch.nn.AvgPool2d(8)
            self.head = torch.nn.Linear(3 * 64, 7, bias=False)
            weight = torch.zeros(7, 3, 8, 8)
            weight[4, :, :, :4] = 1
            self.head.weight = torch.nn.Parameter(weight.flatten(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(self.features(images).flatten(1))
            return found

    plain = card(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    classifier = networks.Classifier(Left(), plain, torch.device("cpu"), False)
    photo = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    photo[0, 16:32, 8:24] = 255
    warm = pictures.heat(classifier, photo, [4])[0]
    assert warm[20:28, 12:20].mean() > 0.9
    assert warm[:, 40:].max() == 0


def test_heatmaps_show_every_model_below_each_photo(
    images: np.ndarray, answers: pd.DataFrame
) -> None:
    classifiers = [
        networks.Classifier(
            networks.build(name, "random", 0), card(architecture=name), torch.device("cpu"), False
        )
        for name in networks.ARCHITECTURES
    ]
    figure = pictures.heatmaps(
        classifiers, images, [answers, answers.assign(predicted="df")], each=1
    )
    assert len(figure.axes) == 3 * 7
    assert [axis.get_title() for axis in figure.axes[:7]] == list(CODES)
    assert [axis.get_ylabel() for axis in figure.axes[7::7]] == ["ResNet50", "MobileNetV2"]
    assert [axis.get_title() for axis in figure.axes[14:]] == ["df"] * 7
    assert all(axis.images for axis in figure.axes)
    first = answers.drop_duplicates("actual").reset_index(drop=True)
    assert len(pictures.heatmaps(classifiers, images, [first, first], each=2).axes) == 3 * 7
    warm = np.zeros((SIZE, SIZE), np.float32)
    np.testing.assert_array_equal(pictures.warmed(images[0], warm), images[0])
    warm[:9] = 1
    assert (pictures.warmed(images[0], warm)[:9] != images[0, :9]).mean() > 0.9
