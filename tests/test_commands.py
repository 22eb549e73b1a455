"""A trained model in use: the commands predict, export and demo, and the page in a browser."""

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
import torch
from helpers import (
    CHROMIUM,
    CODES,
    DATASET,
    FP32,
    PARAMS,
    Ended,
    card_of,
    change_params,
    copy_inputs,
    invoke,
    network_of,
    python,
    serious_findings,
)
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.common.names import unescape
from lesions.networks import model_file
from lesions.networks.inference import BATCH_SIZE
from lesions.scoring.operating_points import OperatingPoint
from lesions.serving import onnx_export
from lesions.serving.arguments import find_photos
from lesions.serving.outputs import heatmap_files
from lesions.serving.predictor import Prediction, Predictor
from lesions.sources.folders import read_folder

SIZE = 128  # the smallest with heat maps
POINTS = tuple(
    OperatingPoint(
        group=group, sensitivity=0.9, threshold=threshold, assured=False, low=0.5, high=0.99
    )
    for group, threshold in zip(DATASET.groups, (0.9, 0.0), strict=True)  # never and always reached
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


def lesions(*arguments: str, folder: Path) -> Ended:
    return invoke(None, *arguments, folder=folder)


def lesions_outside(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the command as users do, in a process of its own."""
    return python("-m", "lesions.commands", *arguments, folder=folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, raw: Path) -> Path:
    """A project's folder with two models, one test set and its pixels."""
    folder = tmp_path_factory.mktemp("use")
    copy_inputs(folder)
    for name in PARAMS.networks:
        # Without directions every photo has a distance of 1 from a mean of 0.
        width, threshold = (2048, 1.1) if name == "resnet50" else (1280, 0.9)
        thresholds = {"confidence_threshold": 0.9, "distance_threshold": threshold}
        fitted = {"temperature": 2.0, "bias": (0, 0, 0, 0, 0, 1.0, 0), "operating_points": POINTS}
        rule = {"prevalence": (0.001, *(0.166,) * 5, 0.169)}
        card = card_of(name, image_size=SIZE, **thresholds, **fitted, **rule)
        state, subspace = network_of(name).state_dict(), np.zeros((1, width), np.float32)
        model_file.save(folder / f"models/{name}.safetensors", state, subspace, card)
    predictor = Predictor(folder / "models/mobilenetv2.safetensors", "cpu")
    paths = sorted((raw / "images").iterdir())
    pixels = np.stack([predictor.decode(path.read_bytes(), path.name) for path in paths])
    (folder / "data/resized").mkdir(parents=True)
    np.save(folder / "data/resized/images.npy", pixels)
    table = pd.read_csv(raw / "metadata.csv", dtype=str).sort_values("image_id")
    write_csv(folder / "data/resized/image_ids.csv", table[["image_id"]])
    write_csv(folder / "data/split/test.csv", table[::2])
    write_csv(folder / "data/split/train.csv", table[1::2])
    return folder


def test_the_csv_has_probabilities_malignant_share_and_flags(
    place: Path, raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.csv"
    result = lesions("predict", str(raw / "images"), "--csv", str(out), folder=place)
    assert result.returncode == 0, result.stderr
    found = pd.read_csv(out)
    flags = ["malignant", "low_confidence", "out_of_distribution"]
    assert list(found.columns) == ["photo", "predicted", *flags, *CODES]
    assert [Path(name).stem for name in found["photo"]] == list(
        pd.read_csv(place / "data/resized/image_ids.csv")["image_id"]
    )
    predictor = Predictor(place / "models/mobilenetv2.safetensors")
    expected = predictor.predict(np.load(place / "data/resized/images.npy"))
    probabilities = [one.probabilities for one in expected]
    np.testing.assert_allclose(found[list(CODES)], probabilities, atol=2e-2)  # other batches
    np.testing.assert_allclose(
        found["malignant"], found[["akiec", "bcc", "mel"]].sum(axis=1), atol=1e-5
    )
    assert list(found["low_confidence"]) == [one.low_confidence for one in expected]
    for row in found.to_dict("records"):
        assert row[row["predicted"]] == max(row[code] for code in CODES)


def test_a_csv_on_standard_output(place: Path, raw: Path, tmp_path: Path) -> None:
    photo = str(sorted((raw / "images").iterdir())[0])
    result = lesions("predict", photo, "--csv", "-", folder=place)
    assert result.returncode == 0, result.stderr
    header, row = result.stdout.splitlines()
    assert header.startswith("photo,predicted,malignant,low_confidence")
    assert row.startswith(photo)
    assert not (place / "-").exists()
    result = lesions("predict", photo, "--csv", "-", "--json", folder=place)
    assert "--json prints to standard output already" in result.stderr


def test_a_csv_is_written_again_unless_it_was_changed(
    place: Path, raw: Path, tmp_path: Path
) -> None:
    photo, out = str(sorted((raw / "images").iterdir())[0]), tmp_path / "out.csv"
    for _ in range(2):
        assert lesions("predict", photo, "--csv", str(out), folder=place).returncode == 0
    notes = out.read_text().replace("photo,", "my notes,photo,", 1)
    out.write_text(notes)
    result = lesions("predict", photo, "--csv", str(out), folder=place)
    assert "out.csv: exists, and is not a file that this project has written" in result.stderr
    assert out.read_text() == notes


def test_heat_maps_beside_the_photos_are_not_predicted(
    place: Path, raw: Path, tmp_path: Path
) -> None:
    model, folder = str(place / "models/mobilenetv2.safetensors"), tmp_path / "photos"
    folder.mkdir()
    shutil.copy(sorted((raw / "images").iterdir())[0], folder / "a.jpg")
    for _ in range(2):
        result = lesions("predict", ".", "--heatmap", ".", "--model", model, folder=folder)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count(".jpg\n") == 1
    assert sorted(file.name for file in folder.iterdir()) == ["a.jpg", "a.jpg.png"]
    assert "left out 1 other file, not photos: a.jpg.png" in result.stderr
    # Nor are they photos of a source.
    for name in ("x", "y"):
        (folder / name).mkdir()
        shutil.copy(folder / "a.jpg", folder / name / f"{name}.jpg")
        shutil.copy(folder / "a.jpg.png", folder / name / f"{name}.jpg.png")
    (folder / "a.jpg").unlink()
    (folder / "a.jpg.png").unlink()
    content = read_folder(folder, {})
    assert sorted(content.table["image_id"]) == ["x", "y"]
    assert "left out 2 heat maps that `lesions predict` has written" in content.notes


def test_a_folder_that_cannot_be_read_is_named_and_the_rest_predicted(
    place: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "locked"):
        (tmp_path / name).mkdir()
        shutil.copy(sorted((raw / "images").iterdir())[0], tmp_path / name)
    listed = Path.iterdir

    def refuse(folder: Path) -> Iterator[Path]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    result = lesions("predict", str(tmp_path), folder=place)
    assert result.returncode == 1
    assert result.stdout.count(".jpg\n") == 1
    assert "locked: Permission denied" in result.stderr
    assert "1 input could not be read; 1 photo predicted" in result.stderr


def test_one_line_per_photo_and_bad_photos_are_reported(
    place: Path, raw: Path, tmp_path: Path
) -> None:
    photo = sorted((raw / "images").iterdir())[0]
    (tmp_path / "text.jpg").write_text("no photo")
    heat = tmp_path / "heat"
    arguments = [str(photo), str(tmp_path / "text.jpg"), "--heatmap", str(heat)]
    result = lesions("predict", *arguments, "--model", "resnet50", folder=place)
    assert result.returncode == 1
    assert "text.jpg: not a photo" in result.stderr
    assert result.stderr.endswith("error: 1 input could not be read; 1 photo predicted.\n")
    header, line, *_ = result.stdout.splitlines()
    words = line.split()
    assert words[-1] == str(photo)
    assert words[0] in CODES
    assert line[header.index("malignant") :].split()[0] == f"{float(words[6]):.3f}"
    assert words[-2] == "L"
    shares = [float(word) for word in words[1:6:2]]
    assert shares == sorted(shares, reverse=True)
    (overlay,) = heat.rglob("*.png")
    assert overlay == heat / f"{photo.relative_to('/')}.png"
    with Image.open(overlay) as image:
        assert image.size == (SIZE, SIZE)


def test_photos_of_one_name_get_heat_maps_of_their_own(
    place: Path, raw: Path, tmp_path: Path
) -> None:
    photo = sorted((raw / "images").iterdir())[0].read_bytes()
    for file in (tmp_path / "a.jpg", tmp_path / "here/a.jpg"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(photo)
    model = str(place / "models/resnet50.safetensors")
    arguments = ["../a.jpg", "a.jpg", "--heatmap", "heat", "--model", model]
    assert lesions("predict", *arguments, folder=tmp_path / "here").returncode == 0
    heat = tmp_path / "here/heat"
    assert sorted(heat.rglob("*.png")) == [heat / "%up/a.jpg.png", heat / "a.jpg.png"]


def test_an_output_that_is_a_photo_is_refused_before_the_model_is_loaded(
    raw: Path, tmp_path: Path
) -> None:
    photos = []
    for number, photo in enumerate(sorted((raw / "images").iterdir())[:3]):
        photos.append(tmp_path / f"{number}.jpg")
        photos[-1].write_bytes(photo.read_bytes())
    before = [photo.read_bytes() for photo in photos]
    (tmp_path / "table.csv").write_text("image_id,dx\n")
    (tmp_path / "link.csv").symlink_to(photos[0])
    (tmp_path / "hard.csv").hardlink_to(photos[0])
    names = [str(photo) for photo in photos]
    for arguments, words in (
        ([names[0], "--csv", str(tmp_path / "table.csv")], "is not a file that this"),
        ([names[0], "--csv", "/dev/null"], "is a device or pipe"),
        (["", "--csv", str(tmp_path / "new.csv")], "an empty name"),
        (["--csv", *names], "0.jpg: ends like a photo"),  # as the shell expands --csv *.jpg
        ([names[0], "--csv", names[0]], "ends like a photo"),
        (
            [names[0], "--csv", str(tmp_path / "link.csv")],
            "link.csv: is one of the files",
        ),
        (
            [names[0], "--csv", str(tmp_path / "hard.csv")],
            "hard.csv: is one of the files",
        ),
    ):
        result = lesions("predict", *arguments, folder=tmp_path)
        assert result.returncode == 1
        assert words in result.stderr
    assert [photo.read_bytes() for photo in photos] == before


def test_heat_maps_never_overwrite_and_follow_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "heat"
    folder.mkdir()
    (folder / "photos").symlink_to(tmp_path)
    with pytest.raises(LesionsError, match="heat/photos: is a link"):
        heatmap_files(folder, [Path("photos/a.jpg")])
    photo = tmp_path / "a.jpg"
    with pytest.raises(LesionsError, match=r"a\.jpg\.png: is a photo to predict"):
        heatmap_files(tmp_path, [Path("a.jpg"), tmp_path / "a.jpg.png"])
    (tmp_path / "b.jpg.png").write_bytes(b"a photo")
    with pytest.raises(LesionsError, match=r"b\.jpg\.png: exists, and is not a file that this"):
        heatmap_files(tmp_path, [Path("b.jpg")])
    found = heatmap_files(folder, [Path("x.jpg"), Path("../x.jpg"), Path("%up/x.jpg"), photo])
    assert len(set(found.values())) == 4
    (long,) = heatmap_files(folder, [Path("é" * 120 + ".jpg")]).values()
    assert len(os.fsencode(long.name)) < 250


def test_names_of_any_bytes_are_predicted_and_kept(place: Path, raw: Path, tmp_path: Path) -> None:
    photo = sorted((raw / "images").iterdir())[0].read_bytes()
    names = [b"\xff\xfe.jpg", b"=1+1.jpg", b"a\x1b[31m\n.jpg", b"x" * 240 + b".jpg"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(photo)
    out, model = tmp_path / "out.csv", str(place / "models/resnet50.safetensors")
    result = lesions_outside("predict", ".", "--csv", str(out), "--model", model, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    found = {os.fsencode(unescape(name)) for name in pd.read_csv(out)["photo"]}
    assert {name.removeprefix(b"./") for name in found} == set(names)
    drawn = lesions("predict", ".", "--model", model, "--heatmap", "heat", folder=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert "\x1b" not in drawn.stdout
    assert len(list((tmp_path / "heat").rglob("*.png"))) == 4


def test_a_folder_of_phone_photos_says_what_is_left_out(
    place: Path, raw: Path, tmp_path: Path
) -> None:
    photo = sorted((raw / "images").iterdir())[0].read_bytes()
    for name in ("a.jpg", "b.JFIF", "c.jpe", "no_ending"):
        (tmp_path / name).write_bytes(photo)
    for name in ("d.HEIC", "e.gif", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"other")
    model = str(place / "models/resnet50.safetensors")
    result = lesions("predict", ".", "--model", model, folder=tmp_path)
    header, *lines = result.stdout.splitlines()
    assert header.split()[-1] == "photo"
    assert [line.split()[-1] for line in lines[:4]] == ["a.jpg", "b.JFIF", "c.jpe", "no_ending"]
    assert lines[4].startswith("4 photos: ")
    assert "left out 2 other files, not photos: d.HEIC, e.gif" in result.stderr


def test_a_folder_is_never_overwritten_by_a_table(place: Path, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("precious")
    photo = str(sorted((raw / "images").iterdir())[0])
    result = lesions("predict", photo, "--json", "--csv", str(tmp_path), folder=place)
    assert result.returncode == 1
    assert result.stdout == ""  # refused before the first photo is predicted
    assert result.stderr == (f"error: {tmp_path}: is a folder. Give the name of a file.\n")
    assert (tmp_path / "kept.txt").read_text() == "precious"


def test_a_port_in_use_is_named(place: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra `demo` is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = lesions_outside("demo", "--port", str(port), folder=place)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: port {port}: Address already in use. Choose another: --port.\n"
    )


def test_json_lines(place: Path, raw: Path) -> None:
    pattern = str(raw / "images" / "*1.jpg")
    model = str(place / "models/resnet50.safetensors")
    result = lesions("predict", pattern, "--json", "--model", model, folder=place.parent)
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(found) == len(list((raw / "images").glob("*1.jpg")))
    for one in found:
        chances = one["probabilities"]
        assert list(chances) == list(CODES)
        assert one["predicted"] == max(chances, key=chances.__getitem__)
        assert one["malignant"] == pytest.approx(
            chances["mel"] + chances["bcc"] + chances["akiec"], abs=1e-5
        )
        assert one["low_confidence"] == (chances[one["predicted"]] < 0.9)
        assert one["out_of_distribution"] is False


def test_no_model_and_no_photo(tmp_path: Path, raw: Path) -> None:
    photo = str(sorted((raw / "images").iterdir())[0])
    result = lesions("predict", photo, folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "error: model 'mobilenetv2': neither models/mobilenetv2.safetensors nor a file of that "
        "name was found. Trained here are: none; `dvc repro` trains them.\n"
    )
    (tmp_path / "models").mkdir()
    (tmp_path / "models/resnet50.safetensors").touch()
    result = lesions("predict", photo, "--model", "vgg", folder=tmp_path)
    assert "error: model 'vgg': neither" in result.stderr
    assert result.stderr.endswith("Trained here are: resnet50.\n")
    result = lesions("demo", "mobilenetv2", folder=tmp_path)
    assert result.stderr.startswith("error: model 'mobilenetv2': neither")
    result = lesions("predict", "nowhere", folder=tmp_path)
    assert result.stderr.startswith(
        "error: nowhere: no photo found. Name files, folders or patterns"
    )


def test_photos_are_found_once_in_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deep/c.tif", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    everything = [tmp_path / name for name in ("a.png", "b.JPG", "deep/c.tif")]
    assert find_photos([str(tmp_path), str(tmp_path / "a.png")]) == (
        everything,
        [tmp_path / "notes.txt"],
        [],
    )
    assert find_photos([str(tmp_path / "?.png")])[0] == [tmp_path / "a.png"]
    assert find_photos([str(tmp_path / "*")])[0][:2] == everything[:2]
    with pytest.raises(LesionsError, match="no photo"):
        find_photos([str(tmp_path / "*.gif")])


def test_batches_in_order_around_a_bad_photo(place: Path, raw: Path, tmp_path: Path) -> None:
    photo = sorted((raw / "images").iterdir())[0].read_bytes()
    paths = [tmp_path / f"{number:03}.jpg" for number in range(2 * BATCH_SIZE + 3)]
    for path in paths:
        path.write_bytes(photo)
    paths[BATCH_SIZE].write_bytes(b"")
    paths.insert(5, tmp_path / "absent.jpg")
    found = list(Predictor(place / "models/mobilenetv2.safetensors", "cpu").predict_files(paths))
    assert [one.path for one in found] == paths
    assert [number for number, one in enumerate(found) if one.error] == [5, BATCH_SIZE + 1]
    assert "absent.jpg: No such file" in found[5].error
    assert all(one.prediction is not None for one in found if not one.error)


@pytest.mark.parametrize(("group", "referred"), [("malignant", True), ("melanoma", False)])
def test_referrals_by_a_threshold_of_the_model_card(
    place: Path, raw: Path, tmp_path: Path, group: str, referred: bool
) -> None:
    photo = str(sorted((raw / "images").iterdir())[0])
    command = ["predict", photo, "--sensitivity", ".9", "--group", group]
    out = tmp_path / "predictions.csv"
    for _ in range(2):  # its own file may be replaced
        assert lesions(*command, "--csv", str(out), folder=place).returncode == 0
    table = pd.read_csv(out)
    assert list(table.columns)[:4] == ["photo", "predicted", "malignant", "refer"]
    assert table["refer"].tolist() == [referred]
    assert json.loads(lesions(*command, "--json", folder=place).stdout)["refer"] is referred
    header, line, photos, refer, *_ = lesions(*command, folder=place).stdout.splitlines()
    assert line[header.index("refer") :].split()[0] == ("refer" if referred else "-")
    assert photos.startswith("1 photo: ")
    assert refer.startswith(f"{int(referred)} of 1 refer: {group} at or above the threshold")
    assert all(len(row) - len(photo) <= 70 for row in (header, line))


def test_a_sensitivity_without_a_threshold_is_refused(place: Path, raw: Path) -> None:
    result = lesions("predict", str(raw / "images"), "--sensitivity", ".5", folder=place)
    assert result.returncode == 1
    expected = "error: --sensitivity 0.5: MobileNetV2 has thresholds for malignant with "
    assert result.stderr.startswith(expected + "sensitivities 0.9.")


def test_too_few_cases_in_validation_are_why_there_is_no_threshold(
    raw: Path, tmp_path: Path
) -> None:
    cases = {"melanoma": 9, "malignant": 9}
    card = card_of(image_size=SIZE, cases=cases, operating_points=())
    state, subspace = network_of("mobilenetv2").state_dict(), np.zeros((1, 1280), np.float32)
    model = tmp_path / "few.safetensors"
    model_file.save(model, state, subspace, card)
    photo = sorted((raw / "images").iterdir())[0]
    result = lesions(
        "predict", str(photo), "--sensitivity", ".9", "--model", str(model), folder=tmp_path
    )
    assert result.stderr.endswith(
        "no thresholds for malignant, because its validation had 9 cases of it; 10 are needed.\n"
    )
    # The demo says so too.
    demo = pytest.importorskip("lesions.serving.demo", reason="the extra `demo` is not installed")
    shown, _ = demo._look(photo.read_bytes())
    nothing = demo.Evidence([], {}, {})
    found = demo._predict(Predictor(model, "cpu"), photo.read_bytes(), shown, nothing)
    assert found["refer"] is None
    assert found["answer"].startswith(
        "No limit for referral: of 10 cases needed, validation had 9 of melanoma and 9 of malignant"
    )


def test_the_decision_is_that_of_params_yaml_or_as_asked(
    place: Path, raw: Path, tmp_path: Path
) -> None:
    photo = str(sorted((raw / "images").iterdir())[0])
    model = ["--model", str(place / "models/mobilenetv2.safetensors"), "--json"]

    def predicted(folder: Path, *options: str) -> str:
        result = lesions("predict", photo, *model, *options, folder=folder)
        assert result.returncode == 0, result.stderr
        return str(json.loads(result.stdout)["predicted"])

    assert predicted(tmp_path) == predicted(place) != "akiec"
    # akiec is so rare that `balanced` always predicts it.
    assert predicted(tmp_path, "--decision", "balanced") == "akiec"
    copy_inputs(tmp_path)
    change_params(tmp_path / "params.yaml", decision="balanced", views=4)
    assert predicted(tmp_path) == "akiec"
    assert predicted(tmp_path, "--decision", "most-probable") != "akiec"
    result = lesions("predict", photo, "--views", "2", folder=place)
    assert "--views 2: must be 1 or 4" in result.stderr


def test_a_prediction_by_hand() -> None:
    probabilities = np.array([0.1, 0.2, 0, 0, 0.4, 0.3, 0])
    prediction = Prediction(probabilities, 4, {"melanoma": 0.4, "malignant": 0.7}, False, False)
    assert [prediction.reaches(point) for point in POINTS] == [False, True]


def test_flags(place: Path) -> None:
    photos = np.load(place / "data/resized/images.npy")[:2]
    for name, expected in (("resnet50", False), ("mobilenetv2", True)):
        predictions = Predictor(place / f"models/{name}.safetensors", "cpu").predict(photos)
        assert [one.out_of_distribution for one in predictions] == [expected] * 2
        assert [one.low_confidence for one in predictions] == [True] * 2


@pytest.mark.slow
def test_export_agrees_with_torch_and_compares_int8(place: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    result = lesions("export", "--int8", folder=place)
    assert result.returncode == 0, result.stderr
    assert "differ from torch's by at most" in result.stdout
    assert "balanced_accuracy" in result.stdout
    import onnxruntime

    whole, small = (place / f"models/mobilenetv2{end}" for end in (".onnx", ".int8.onnx"))
    assert small.stat().st_size < 0.4 * whole.stat().st_size
    session = onnxruntime.InferenceSession(whole)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(CODES)
    card = json.loads(metadata["card"])
    assert [one["views"] for one in card["fitted"]] == [1, 4]
    assert card["fitted"][0]["bias"][5] == 1.0
    assert metadata["decision"] == "most-probable"
    assert "antialiasing" in metadata["resize"]
    photos = np.load(place / "data/resized/images.npy")[:5]
    unit = photos.transpose(0, 3, 1, 2).astype(np.float32) / 255
    path = place / "models/mobilenetv2.safetensors"
    classifier = model_file.load(path, FP32).classifier
    with torch.inference_mode():
        logits = classifier.logits(torch.from_numpy(unit.copy())).numpy()
    for size in (1, 5):
        (probabilities,) = session.run(None, {"photos": unit[:size]})
        np.testing.assert_allclose(
            probabilities,
            classifier.card.use(1).calibration.probabilities(logits[:size]),
            atol=1e-4,
        )


@pytest.mark.slow
def test_an_export_that_differs_leaves_what_was(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    monkeypatch.chdir(tmp_path)  # without a test set, synthetic photos are compared
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    out = tmp_path / "model.onnx"
    out.write_text("the last good one")
    with pytest.raises(
        LesionsError, match=r"model\.onnx: probabilities of 7 synthetic photos differ"
    ):
        onnx_export.export_onnx(place / "models/mobilenetv2.safetensors", out, "most-probable")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert out.read_text() == "the last good one"


@contextlib.contextmanager
def serving(place: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    """Run the demo until the block ends; it accepts connections when the block starts."""
    command = [sys.executable, "-m", "lesions.commands", "demo", "--port", str(port)]
    # A background job, as CI may be, inherits an ignored SIGINT; the demo must hear it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, cwd=place, stdout=pipe, stderr=pipe, text=True)
    signal.signal(signal.SIGINT, before)
    try:
        assert server.stdout
        assert server.stdout.readline().startswith(f"http://127.0.0.1:{port}")
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        yield server
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    pytest.importorskip("uvicorn", reason="the extra `demo` is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(place, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    errors: list[str] = []
    requested: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(address)
    yield page
    assert errors == []
    assert all(url.startswith((address, "data:")) for url in requested)
    page.close()


def upload(page: Page, name: str, content: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": content})


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_an_upload_is_predicted_by_both_models(page: Page, raw: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    upload(page, "photo.jpg", sorted((raw / "images").iterdir())[0].read_bytes())
    expect(page.locator("#predictions h3")).to_have_text(["ResNet50", "MobileNetV2"])
    assert page.locator(".bar").count() == 14
    assert "melanocytic nevus (nv)" in page.inner_text("#predictions")
    assert page.locator(".answer").get_by_text("Low confidence:").count() == 2
    assert page.locator(".answer").get_by_text("Out of distribution:").count() == 1
    refers = page.locator(".answer.refer")
    expect(refers).to_have_count(2)
    expect(refers.first).to_contain_text("Refer: malignant")
    expect(refers.first).to_contain_text(", which finds 90 % in validation. Most probable: ")
    status = page.locator("#status")
    assert "Refer: malignant" in status.inner_text()  # announced, and below for all to see
    assert status.bounding_box()["width"] < 2  # type: ignore[index]
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious_findings(page) == []
    page.uncheck("#heat")
    expect(page.locator("article figure:visible")).to_have_count(1)
    assert "Not a medical device" in page.inner_text("body")
    assert "trained on synthetic pictures" in page.inner_text("body")


@pytest.mark.slow
@needs_browser
def test_examples_by_keyboard(page: Page) -> None:
    page.locator(".examples button").nth(4).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#predictions h3")).to_have_count(2)


@pytest.mark.slow
@needs_browser
def test_a_text_file_is_refused_and_the_page_goes_on(page: Page, raw: Path) -> None:
    upload(page, "notes.jpg", b"no photo at all")
    expect(page.locator("#status")).to_contain_text("not a photo")
    upload(page, "photo.jpg", sorted((raw / "images").iterdir())[0].read_bytes())
    expect(page.locator("#predictions h3")).to_have_count(2)
    expect(page.locator("#status")).to_contain_text("Most probable: ")


@pytest.mark.slow
@needs_browser
def test_forty_megapixels_are_accepted_and_a_hundred_refused(page: Page) -> None:
    for side, words in ((6400, ""), (10_000, "at most 80,000,000 are allowed")):
        file = io.BytesIO()
        Image.new("RGB", (side, side), "pink").save(file, "JPEG")
        upload(page, "large.jpg", file.getvalue())
        expect(page.locator("#status")).to_contain_text(words, timeout=20_000)
        expect(page.locator("#predictions h3")).to_have_count(0 if words else 2, timeout=20_000)


@pytest.mark.slow
def test_two_uploads_at_once_and_one_too_large(address: str, raw: Path) -> None:
    photos = [path.read_bytes() for path in sorted((raw / "images").iterdir())[::9]]

    def ask(content: bytes) -> requests.Response:
        return requests.post(f"{address}/predict", data=content, timeout=60)

    alone = [ask(photo).json() for photo in photos]
    with ThreadPoolExecutor(len(photos)) as pool:
        together = [response.json() for response in pool.map(ask, photos)]
    for one, other in zip(alone, together, strict=True):
        assert [model["probabilities"] for model in one["models"]] == [
            model["probabilities"] for model in other["models"]
        ]
    large = ask(os.urandom(20_000_001))
    assert large.status_code == 413
    assert large.json() == {"error": "larger than 20 MB"}
    assert requests.get(f"{address}/example/x", timeout=9).status_code == 404
    foreign = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    answer = requests.post(f"{address}/predict", b"", headers=foreign, timeout=9)
    assert answer.status_code == 403
    assert "ssh -L 7860:127.0.0.1:7860 HOST" in answer.json()["error"]
    assert requests.get(address, headers={"Host": "evil.example"}, timeout=9).status_code == 400


@pytest.mark.slow
def test_every_response_has_the_security_headers(address: str) -> None:
    for path in ("", "/example/mel", "/nowhere"):
        headers = requests.get(address + path, timeout=9).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.slow
@needs_browser
def test_paste_several_files_and_a_drop_beside_the_frame(page: Page, raw: Path) -> None:
    photo = sorted((raw / "images").iterdir())[0].read_bytes()
    send = """([bytes, kind, count]) => {
        const data = new DataTransfer();
        for (let k = 0; k < count; k++) {
            const name = `photo${k}.jpg`;
            data.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
        }
        const options = {bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data};
        const Kind = kind === "paste" ? ClipboardEvent : DragEvent;
        document.body.dispatchEvent(new Kind(kind, options));
    }"""
    page.evaluate(send, [list(photo), "paste", 1])
    expect(page.locator("#status")).to_contain_text("photo0.jpg. ResNet50", timeout=20_000)
    page.evaluate(send, [list(photo), "drop", 3])
    expect(page.locator("#status")).to_contain_text(
        "3 photos predicted, 3 to refer.", timeout=20_000
    )
    names = [f"photo{number}.jpg" for number in range(3)]
    expect(page.locator("article h2")).to_have_text(names)
    assert serious_findings(page) == []
    # They are a table too, and a file.
    expect(page.locator("#several tbody tr")).to_have_count(6)
    with page.expect_download() as download:
        page.click("#csv")
    table = pd.read_csv(download.value.path())
    assert list(table["photo"].unique()) == names
    assert list(table.columns) == [
        *("photo", "model", "refer", "predicted", "probability", "flags"),
        *CODES,
    ]
    np.testing.assert_allclose(table[list(CODES)].sum(axis=1), 1, atol=0.001)


@pytest.mark.slow
@needs_browser
def test_cancel_ends_the_prediction_of_several_photos(page: Page, raw: Path) -> None:
    photo = sorted((raw / "images").iterdir())[0].read_bytes()
    page.route("**/predict", lambda route: None)  # never answered
    files = [
        {"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": photo} for number in range(3)
    ]
    page.set_input_files("#file", files)  # type: ignore[arg-type]
    expect(page.locator("#status")).to_contain_text("Predicting 0.jpg (1 of 3)")
    page.click("#cancel")
    expect(page.locator("#status")).to_have_text("Cancelled.")
    expect(page.locator("#cancel")).to_be_hidden()


@pytest.mark.slow
@needs_browser
def test_cancel_while_the_answer_arrives(page: Page) -> None:
    # The headers are there and the body is not: the browser's error is that of a broken body.
    page.evaluate("""() => {
        window.fetch = async (_, { signal }) => ({ ok: true, status: 200, json: () =>
            new Promise((_, reject) => signal.addEventListener("abort", () =>
                reject(new DOMException("aborted", "AbortError")))) });
    }""")
    upload(page, "photo.jpg", b"x")
    page.click("#cancel")
    expect(page.locator("#status")).to_have_text("Cancelled.")


@pytest.mark.slow
@needs_browser
def test_long_and_tiny_photos(page: Page) -> None:
    def photo(width: int, height: int) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (width, height), "pink").save(file, "PNG")
        return file.getvalue()

    upload(page, "tiny.png", photo(1, 1))
    expect(page.locator("#status")).to_contain_text("1×1 pixels; at least 32 in each direction")
    upload(page, "long.png", photo(600, 120))
    expect(page.locator("article .mark").first).to_contain_text("5.0 times as long as wide")
    shown = page.locator("article img").first
    ratio = shown.evaluate("image => image.naturalWidth / image.naturalHeight")
    assert ratio == pytest.approx(5, rel=0.02)  # whole, not squeezed


@pytest.mark.slow
@needs_browser
def test_the_page_says_so_when_the_server_is_gone(page: Page, raw: Path) -> None:
    page.route("**/predict", lambda route: route.abort())
    upload(page, "photo.jpg", b"x")
    expect(page.locator("#status")).to_contain_text("The server does not answer")
    page.unroute("**/predict")
    page.route("**/predict", lambda route: route.fulfill(status=500, body="Internal"))
    upload(page, "photo.jpg", b"x")
    expect(page.locator("#status")).to_contain_text("The server failed (HTTP 500)")


def test_an_upload_that_never_ends_is_given_up(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = pytest.importorskip("lesions.serving.demo", reason="the extra `demo` is not installed")
    monkeypatch.setattr(demo, "READ_SECONDS", 0.01)
    app = demo.application([place / "models/mobilenetv2.safetensors"])
    coming = iter([{"type": "http.request", "body": b"half", "more_body": True}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        for message in coming:
            return message
        return await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
    with ThreadPoolExecutor(1) as pool:  # playwright has a loop in this thread
        pool.submit(asyncio.run, app({**scope, "query_string": b""}, receive, send)).result()
    assert sent[0]["status"] == 408
    assert b"the upload took more than 0.01 s" in sent[1]["body"]


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_while_an_upload_is_stalled(place: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra `demo` is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(place, port) as server:
        stalled = socket.create_connection(("127.0.0.1", port), timeout=30)
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99\r\n\r\n"
        stalled.sendall(head.encode() + b"half")
        time.sleep(0.5)
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 130
        assert server.stderr
        assert server.stderr.read().endswith("the demo has ended\n")
        stalled.close()
