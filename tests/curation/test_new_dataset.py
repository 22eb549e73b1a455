from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import PARAMS, Ended, copy_inputs, invoke
from PIL import Image

from lesions.curation import new_dataset
from lesions.dataset.description import load_description


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, and next to it photos of two classes of 20 patients."""
    copy_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), []
    for number in range(60):
        folder = tmp_path / "My Photos" / ("No lesion", "Photo")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append((number, number // 3))
    table = pd.DataFrame(rows, columns=["image", "patient_id"])
    table.to_csv(tmp_path / "My Photos/people.csv", index=False)
    return tmp_path


def new(*arguments: str) -> Ended:
    return invoke(None, "new", *arguments, folder=Path.cwd())


def test_looking_writes_nothing_and_says_what_was_found(place: Path) -> None:
    (place / "My Photos/Photo/1.png").write_bytes(b"no photo")
    (place / "My Photos/Photo/3.png").write_bytes((place / "My Photos/Photo/5.png").read_bytes())
    before = sorted(place.rglob("*"))
    done = new("My Photos", "--check")
    assert done.returncode == 0, done.stderr
    assert sorted(place.rglob("*")) == before
    for words in (
        "My Photos: 60 photos of 20 patients in 2 classes",
        "files:   59 PNG; 59 of 32×24",
        "assumed: classes: the names of the photos' folders",
        "assumed: columns: image: image, patient: patient_id",
        "split:   0 of 20 patients are in two subsets; a split by photo would have put",
        "check:   unreadable: My Photos/Photo/1.png: not a photo",
        "check:   1 photos have the same bytes as another, 3 and 5 for one",
        "check:   `groups` is empty",
    ):
        assert words in done.stdout, words


def test_the_description_is_written_once_and_read_back(place: Path) -> None:
    proposal = new_dataset.propose(place / "My Photos", PARAMS, {})
    path = new_dataset.path_of(place / "My Photos", None)
    assert path == Path("datasets/my_photos.yaml")
    new_dataset.write_description(path, proposal)
    # The class `photo` would be a column of the results.
    assert load_description(str(path)).classes == ("no_lesion", "photo_2")
    assert load_description(str(path)) == proposal.dataset
    assert "# What must be found" in path.read_text()
    for name, words in ((None, "my_photos.yaml: exists"), ("A b", "lower-case letters")):
        arguments = ["My Photos", *(["--name", name] if name else [])]
        assert words in new(*arguments).stderr


def test_the_command_that_is_printed_names_everything(place: Path) -> None:
    proposal = new_dataset.propose(place / "My Photos", PARAMS, {})
    command = new_dataset.command(Path("datasets/x.yaml"), proposal, {"epochs": 4})
    source = place / "My Photos"
    assert command == (
        f"dvc exp run -S dataset=datasets/x.yaml -S 'source=\"{source}\"' "
        "-S holdout=any-lesion -S epochs=4"
    )


def test_a_second_look_knows_the_groups_that_were_named(place: Path) -> None:
    assert new("My Photos").returncode == 0
    path = place / "datasets/my_photos.yaml"
    text = path.read_text()
    assert "`groups` is empty" in new("My Photos", "--check").stdout
    path.write_text(text.replace("groups: {}", "groups: {found: [photo]}"))
    assert "`groups` is empty" not in new("My Photos", "--check").stdout


def test_classes_of_few_photos_and_one_class_are_named(place: Path) -> None:
    rare = place / "My Photos" / "Rare"
    rare.mkdir()
    Image.new("RGB", (9, 9)).save(rare / "99.png")
    table = place / "My Photos/people.csv"
    table.write_text(table.read_text() + "99,77\n")
    output = new("My Photos", "--check").stdout
    assert "fewer than 3 patients of rare: validation or test lacks them" in output
    one = place / "one" / "a"
    one.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(one / "1.png")
    (place / "one/t.csv").write_text("image,label\n1,a\n")
    assert "has 1 class (a); two are needed" in new("one").stderr


def test_labels_of_any_letters_become_classes(place: Path) -> None:
    folder = place / "labels"
    folder.mkdir()
    rows = []
    for number, label in enumerate(["Мел", "Nevus", "nevus", "UNK", "a/b", "Мел", "a/b"]):
        Image.new("RGB", (9, 9)).save(folder / f"{number}.png")
        rows.append((number, label))
    pd.DataFrame(rows, columns=["image", "label"]).to_csv(folder / "t.csv", index=False)
    dataset = new_dataset.propose(folder, PARAMS, {}).dataset
    assert dataset.titles == {"a_b": "a/b", "nevus": "Nevus", "class_3": "Мел"}
    assert dataset.left_out == ("UNK",)


@pytest.mark.slow
def test_the_forecast_follows(place: Path) -> None:
    values = yaml.safe_load((place / "params.yaml").read_text())
    small = {"networks": {"mobilenetv2": values["networks"]["mobilenetv2"]}, "image_size": 32}
    fast = {"batch_size": 4, "device": "cpu", "precision": "fp32"}
    (place / "params.yaml").write_text(yaml.safe_dump({**values, **small, **fast}))
    done = new("My Photos")
    assert done.returncode == 0, done.stderr
    assert "written: datasets/my_photos.yaml" in done.stdout
    assert done.stdout.count("dvc exp run -S dataset=datasets/my_photos.yaml") == 2
    assert done.stdout.count("train-mobilenetv2") == 2


def test_labels_that_cannot_be_classes_and_labels_that_look_like_numbers(place: Path) -> None:
    folder = place / "labels"
    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (9, 9)).save(folder / f"{number}.png")

    def write(labels: list[str]) -> None:
        table = pd.DataFrame({"image": range(len(labels)), "label": labels})
        table.to_csv(folder / "t.csv", index=False)

    write(["1e5", "0o17", "null", "NA", "first", "HER2+", "HER2-", "no"])
    output = new("labels").stdout
    dataset = load_description("datasets/labels.yaml")
    labels = {"1e5", "0o17", "null", "NA", "first", "HER2+", "HER2-", "no"}
    assert set(dataset.titles.values()) == labels, output
    assert "first" not in dataset.classes  # a column of comparison.csv
    write(["a", "x" * 1001])
    long = new("labels", "--name", "long")
    assert long.returncode == 1
    assert long.stderr.startswith("error: ")
    assert "at most 1000 characters" in long.stderr
    assert not Path("datasets/long.yaml").exists()
