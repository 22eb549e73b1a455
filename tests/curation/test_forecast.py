import re
from pathlib import Path

import pytest
from helpers import DATASET, FP32

from lesions.common.errors import LesionsError
from lesions.common.params import Params
from lesions.curation import forecast
from lesions.sources.catalogue import HAM10000


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


def test_the_forecast_measures_this_machine(tmp_path: Path, params: Params) -> None:
    small = {"image_size": 32, "batch_size": 4, "device": "cpu", "precision": "fp32"}
    networks = {"mobilenetv2": params.networks["mobilenetv2"]}
    changed = params.model_copy(update={**small, "networks": networks})
    output = forecast.forecast(changed.model_copy(update={"source": "kaggle"}), DATASET)
    assert "5.2 GB from kaggle.com" in output
    assert re.search(r"train-mobilenetv2  10 epochs of about .*: about \d+:\d\d h", output)
    with pytest.raises(LesionsError, match="has no photos"):
        forecast.forecast(changed.model_copy(update={"source": str(tmp_path)}), DATASET)
