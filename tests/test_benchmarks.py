import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import CODES, generate_raw

from benchmarks import (
    gpu,
    official,
    throughput,
    verify,
)
from lesions.common.artifacts import write_csv
from lesions.common.params import Params
from lesions.dataset.photos import PhotoArray
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
    monkeypatch.setattr(gpu, "LOG", tmp_path / "log")
    monkeypatch.setattr(gpu, "TRAINING_PHOTOS", dict.fromkeys(CODES, 10))
    params = params.model_copy(update={"image_size": 32, "device": "cpu", "precision": "fp32"})
    found = gpu.prepare(tmp_path, params, None, gpu.Deadline(5))
    assert found["observations"] == 70
    assert gpu.smoke(tmp_path, params, "mobilenetv2", gpu.Deadline(5))["same"]


@pytest.mark.slow
def test_the_gpu_benchmark_prepares_real_photos(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "LOG", tmp_path / "log")
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
