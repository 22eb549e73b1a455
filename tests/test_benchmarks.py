import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import FP32, generate_raw, random_predictions

from benchmarks import (
    forecast,
    gpu,
    mistakes,
    official,
    seeds,
    shortcut,
    throughput,
    trainings,
    verify,
)
from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.common.params import Params
from lesions.dataset.diagnoses import CODES
from lesions.dataset.photos import PhotoArray
from lesions.evaluation.metrics import bootstrap, point_estimates
from lesions.evaluation.predictions import as_table
from lesions.sources.catalogue import HAM10000
from lesions.sources.sample import LESIONS


def test_ratio_of_each_round() -> None:
    found = throughput.ratio(pd.Series([1.0, 4.0, 9.0]), pd.Series([1.0, 2.0, 3.0]))
    assert found == {"median": 2.0, "lowest": 1.0, "highest": 3.0}


def test_training_can_read_the_synthetic_project(tmp_path: Path, params: Params) -> None:
    photos = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    folder = throughput.project(tmp_path / "p", photos, 8, params)
    array = PhotoArray(folder / "data/resized")
    np.testing.assert_array_equal(array.images[7], photos[1])
    seconds, memory = throughput.input_side(folder)
    assert seconds > 0
    assert memory > 1_000_000


@pytest.mark.slow
def test_training_runs_on_what_the_gpu_benchmark_prepares(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "TRAINING_PHOTOS", dict.fromkeys(CODES, 10))
    params = params.model_copy(update={"image_size": 32, "device": "cpu", "precision": "fp32"})
    found = gpu.prepare(tmp_path, params, None, gpu.Deadline(5))
    assert found["observations"] == 70
    assert gpu.same_bytes(tmp_path, params, "mobilenetv2", gpu.Deadline(5))["same"]


@pytest.mark.slow
def test_the_gpu_benchmark_prepares_real_photos(tmp_path: Path, params: Params) -> None:
    generate_raw(0, tmp_path / "photos", LESIONS)
    params = params.model_copy(update={"image_size": 32, "device": "cpu"})
    (tmp_path / "work").mkdir()
    found = gpu.prepare(tmp_path / "work", params, tmp_path / "photos", gpu.Deadline(5))
    assert (found["photos"], found["observations"]) == ("real", 98)


def test_only_histories_are_left_out_of_the_comparison(tmp_path: Path) -> None:
    for name in ("data/a.csv", "plots/m/history.csv", "metrics/val/m.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = verify.outputs(tmp_path)
    assert list(found) == ["data/a.csv", "metrics/val/m.json"]
    before = verify.summary(found, "data/")
    (tmp_path / "data/a.csv").write_text("other")
    assert verify.summary(verify.outputs(tmp_path), "data/") != before


def test_seeds_and_photos_have_deviations_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = random_predictions(seed=0), random_predictions(seed=1)
    same = seeds.spread([one, one]).set_index("metric")
    assert (same["seed"] == 0).all()
    assert (same["photos"] > 0.005).all()
    assert same.loc["accuracy", "photos"] == pytest.approx(bootstrap(one)["accuracy"].std(ddof=1))
    assert (same["both"] == same["photos"]).all()
    # Seeds can differ where the photos do not matter.
    wrong = dataclasses.replace(other, photos=one.photos, labels=one.labels)
    wrong = dataclasses.replace(wrong, predicted=(one.labels + 1) % 7)
    right = dataclasses.replace(wrong, predicted=one.labels)
    apart = seeds.spread([wrong, right]).set_index("metric").loc["accuracy"]
    assert (apart["mean"], apart["photos"]) == (0.5, 0)
    assert apart["seed"] == apart["both"] == pytest.approx(0.5**0.5)

    files = [tmp_path / f"{number}.csv" for number in range(2)]
    for file, predictions in zip(files, (one, dataclasses.replace(one)), strict=True):
        write_csv(file, as_table(predictions))
    seeds.main(read=files)
    assert "2 seeds" in (output := capsys.readouterr().out)
    assert f"| accuracy | {point_estimates(one)['accuracy']:.3f} |" in output
    assert "–:" not in output
    few = one.subset(np.arange(len(one.labels)) < 9)
    assert "–: fewer than 30 test lesions" in seeds.as_text(seeds.spread([few, few]))
    with pytest.raises(LesionsError, match="not tested on the same photos"):
        seeds.spread([one, one.subset(one.labels > 0)])


@pytest.mark.parametrize(("theirs", "status"), [(0.5, 0), (0.51, 1)])
def test_another_result_of_the_official_scorer_is_a_failure(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch, theirs: float, status: int
) -> None:
    monkeypatch.chdir(tmp_path)
    networks = {"mobilenetv2": params.networks["mobilenetv2"]}
    one = params.model_copy(update={"networks": networks})
    monkeypatch.setattr(official, "load_params", lambda: one)
    photo = {"image_id": ["A"], "actual": ["nv"], **{code: [0.1] for code in CODES}}
    write_csv(Path("plots/mobilenetv2/predictions.csv"), pd.DataFrame(photo))
    row = {"model": ["MobileNetV2"], "dx": ["nv"], "roc_auc": [1.0]}
    write_csv(Path("plots/per_class.csv"), pd.DataFrame(row))
    row = {"model": ["MobileNetV2"], "decision": ["most-probable"]}
    row |= {"metric": ["balanced_accuracy"], "value": [0.5]}
    write_csv(Path("plots/decisions.csv"), pd.DataFrame(row))
    scorer = tmp_path / "scorer"
    result = json.dumps({"overall": theirs, "per_category": {"auc": {"NV": 1.0}}})
    # Like the real one, it takes exactly two files.
    scorer.write_text(f"#!/bin/sh\n[ $# = 5 ] && echo '{result}'\n")
    scorer.chmod(0o755)
    with pytest.raises(SystemExit) as ended:
        official.main(scorer)
    assert ended.value.code == status


def test_a_mistake_is_the_mean_over_seeds_and_paired_where_the_photos_are() -> None:
    first, second = random_predictions(seed=0), random_predictions(seed=1)
    same = mistakes.compare([mistakes.Mistake("m", first, first, True)])
    assert same["metric"].tolist()[:2] == ["weighted_f1", "balanced_accuracy"]
    assert not same[["difference", "low", "high"]].to_numpy().any()
    # Unpaired, the same predictions differ by chance.
    apart = mistakes.compare([mistakes.Mistake("m", first, first, False)])
    assert (apart["low"] < -0.01).all()
    assert (apart["high"] > 0.01).all()
    both = mistakes.compare([mistakes.Mistake("m", one, first, True) for one in (first, second)])
    alone = mistakes.compare([mistakes.Mistake("m", second, first, True)])
    np.testing.assert_allclose(both["difference"], alone["difference"] / 2, atol=1e-4)
    assert f"| m | weighted F1 | {alone['reported'][0]:.3f} |" in mistakes.as_text(alone)


@pytest.mark.slow
def test_mistakes_on_the_sample_are_trained_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = ["image_size=32", "epochs=1", "device=cpu", "precision=fp32"]
    mistakes.main(changes, "mobilenetv2", 1, tmp_path)
    output = capfd.readouterr().out
    assert "LEAKING (holdout: any-photo)" in output
    assert output.count("| lesions in training and test |") == 4
    assert len(pd.read_csv(tmp_path / "mistakes.csv")) == 12
    assert (tmp_path / "mistakes.png").stat().st_size > 10_000
    assert output.count("resize: 99 photos") == 1
    assert "too few to compare" in output
    mistakes.main(changes, "mobilenetv2", 1, tmp_path)
    assert "epoch 1/1" not in capfd.readouterr().err


def test_known_photos_are_in_both_test_sets_and_their_lesion_in_training() -> None:
    predictions = random_predictions()  # P0 of the lesion L0, and so on
    leaked = predictions.subset(np.arange(300) < 20)
    true = predictions.subset(np.arange(300) >= 10)
    assert mistakes.known_photos(leaked, true, {"L5", "L12", "L15", "L30"}) == {"P12", "P15"}


def test_parameters_of_mistakes_are_read_as_dvc_does(tmp_path: Path) -> None:
    changes = ["lr=1e-4", "augment.hue=0", f"source={tmp_path}"]
    params = trainings.read_params(changes, "mobilenetv2")
    assert (params.lr, params.augment.hue, params.source) == (1e-4, 0, str(tmp_path))
    assert list(params.networks) == ["mobilenetv2"]
    assert params.starting_weights("mobilenetv2") == "imagenet"
    with pytest.raises(LesionsError, match=r"--set-param lr: Input should be less than or equal"):
        trainings.read_params(["lr=7"], "mobilenetv2")


@pytest.mark.slow
def test_the_shortcut_is_tested_with_and_without_the_ruler(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = ["image_size=32", "epochs=1", "device=cpu", "precision=fp32"]
    shortcut.main(changes, "mobilenetv2", 0.8, tmp_path)
    output = capfd.readouterr().out
    assert "shortcut: a ruler on 11 training photos of mel" in output  # of 14
    assert output.count("| photos as they are |") == output.count("| rulers on 80% |") == 2
    table = pd.read_csv(tmp_path / "shortcut.csv")
    assert table["tested with"].tolist() == ["no ruler", "ruler"] * 2
    assert set(table["others called melanoma"].str.split().str[-1]) == {"16"}
    assert (tmp_path / "shortcut.png").stat().st_size > 10_000


def test_the_forecast_says_what_is_fetched_how_long_it_takes_and_what_it_leaves(
    params: Params,
) -> None:
    speeds = {name: forecast.Speeds(100.0, 1001.5) for name in params.networks}
    text = forecast.describe(
        params.model_copy(update={"source": "dataverse"}),
        "2.8 GB",
        HAM10000.counts or {},
        10015 / 120,
        speeds,
        FP32,
    )
    # 35,337 observations in truth: the estimate does not know which lesions are held out.
    assert "download           2.8 GB\n" in text
    assert "resize             10,015 photos to 224×224 pixels, 1.5 GB: about 0:02 h" in text
    found = re.search(r"10 epochs of about ([\d,]+) observations, from imagenet weights", text)
    assert found
    assert abs(int(found[1].replace(",", "")) - 35_337) < 3000
    assert text.count(": about 1:0") == 2  # ten epochs at 100 photos/s
    assert "models/ (weights and model cards), metrics/ and plots/" in text


def test_the_forecast_measures_this_machine(
    tmp_path: Path,
    params: Params,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {"image_size": 32, "batch_size": 4, "device": "cpu", "precision": "fp32"}
    networks = {"mobilenetv2": params.networks["mobilenetv2"]}
    changed = params.model_copy(update={**small, "networks": networks})
    monkeypatch.setattr(forecast, "load_params", lambda: changed)
    forecast.main("kaggle")
    output = capsys.readouterr().out
    assert "5.2 GB from kaggle.com" in output
    assert re.search(r"train-mobilenetv2  10 epochs of about .*: about \d+:\d\d h", output)
    with pytest.raises(LesionsError, match=r"SOURCE=.*neither dataverse, kaggle nor a folder"):
        forecast.main(str(tmp_path))
