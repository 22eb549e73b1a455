import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, random_predictions

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.evaluation.predictions import as_table
from lesions.evaluation.tables import bootstrap, point_estimates
from studies import pitfalls, seeds, shortcut, trainings


def test_seeds_and_photos_have_deviations_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = random_predictions(seed=0), random_predictions(seed=1)
    same = seeds.spread([[one, one]]).set_index("metric")
    assert (same["seed"] == 0).all()
    assert (same["photos"] > 0.005).all()
    assert same.loc["accuracy", "photos"] == pytest.approx(bootstrap(one)["accuracy"].std())
    assert (same["total"] == same["photos"]).all()
    assert same["data"].isna().all()
    assert (same["detectable"] == 0).all()
    # Seeds can differ where the photos do not matter.
    wrong = dataclasses.replace(other, photos=one.photos, labels=one.labels)
    wrong = dataclasses.replace(wrong, predicted=(one.labels + 1) % 7)
    right = dataclasses.replace(wrong, predicted=one.labels)
    apart = seeds.spread([[wrong, right]]).set_index("metric").loc["accuracy"]
    assert (apart["mean"], apart["photos"]) == (0.5, 0)
    assert apart["seed"] == apart["total"] == pytest.approx(0.5**0.5)

    files = [tmp_path / f"{number}.csv" for number in range(2)]
    for file, predictions in zip(files, (one, dataclasses.replace(one)), strict=True):
        write_csv(file, as_table(predictions))
    monkeypatch.chdir(ROOT)
    seeds.main(read=files)
    assert "2 seeds" in (output := capsys.readouterr().out)
    assert f"| accuracy | {point_estimates(one)['accuracy']:.3f} |" in output
    assert "–:" not in output
    few = one.subset(np.arange(len(one.labels)) < 9)
    assert "–: fewer than 30 test lesions" in seeds.as_text(seeds.spread([[few, few]]))
    with pytest.raises(LesionsError, match="not tested on the same photos"):
        seeds.spread([[one, one.subset(one.labels > 0)]])


def test_each_cause_of_luck_is_counted_once() -> None:
    # A metric is the mean over photos of an effect of the photo and one of seed and photo together,
    # plus an effect of the seed and, with several splits, one of the split's other photos.
    rng = np.random.default_rng(0)
    photos, seeds_, sd = 200, 3, {"photo": 1.0, "both": 1.5, "seed": 0.08, "split": 0.12}

    def simulate(splits: int) -> seeds.Components:
        shape = (splits, seeds_, photos)
        of_photo = rng.normal(0, sd["photo"], (splits, 1, photos)) + rng.normal(
            0, sd["both"], shape
        )
        of_run = rng.normal(0, sd["split"], (splits, 1)) + rng.normal(0, sd["seed"], shape[:2])
        weights = rng.multinomial(photos, np.full(photos, 1 / photos), 200) / photos
        samples = np.einsum("sep,bp->seb", of_photo, weights) + of_run[..., None]
        return seeds.components(of_photo.mean(axis=2) + of_run, samples)

    expected = {
        "photos": sd["photo"] ** 2 / photos,
        "seed": sd["seed"] ** 2 + sd["both"] ** 2 / photos,
        "data": sd["split"] ** 2,
        "paired": 2 * sd["both"] ** 2 / photos,
    }
    one_split = np.mean([simulate(1) for _ in range(300)], axis=0)
    found = dict(zip(seeds.Components._fields, one_split, strict=True))
    assert found["photos"] == pytest.approx(expected["photos"], rel=0.15)
    assert found["seed"] == pytest.approx(expected["seed"], rel=0.15)
    assert found["paired"] == pytest.approx(expected["paired"], rel=0.1)
    assert found["total"] == pytest.approx(expected["photos"] + expected["seed"], rel=0.1)
    assert np.isnan(found["data"])
    several = np.mean([simulate(8) for _ in range(150)], axis=0)
    found = dict(zip(seeds.Components._fields, several, strict=True))
    whole = expected["photos"] + expected["seed"] + expected["data"]
    assert found["total"] == pytest.approx(whole, rel=0.1)
    assert found["data"] == pytest.approx(expected["data"], rel=0.3)


def test_a_pitfall_is_the_mean_over_seeds_and_paired_where_the_photos_are() -> None:
    first, second = random_predictions(seed=0), random_predictions(seed=1)
    same = pitfalls.compare([pitfalls.Pitfall("m", first, first, True)])
    assert same["metric"].tolist()[:2] == ["accuracy", "balanced accuracy"]
    assert not same["difference"].any()
    assert same[["low", "high"]].isna().all(axis=None)
    # Unpaired, the same predictions differ by chance.
    apart = pitfalls.compare([pitfalls.Pitfall("m", first, first, False)])
    assert (apart["low"] < -0.01).all()
    assert (apart["high"] > 0.01).all()
    both = pitfalls.compare([pitfalls.Pitfall("m", one, first, True) for one in (first, second)])
    alone = pitfalls.compare([pitfalls.Pitfall("m", second, first, True)])
    np.testing.assert_allclose(both["difference"], alone["difference"] / 2, atol=1e-4)
    assert f"| m | accuracy | {alone['reported'][0]:.3f} |" in pitfalls.as_text(alone)


@pytest.mark.slow
def test_pitfalls_on_the_sample_are_trained_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = ["image_size=32", "epochs=1", "device=cpu", "precision=fp32"]
    pitfalls.main(changes, "mobilenetv2", 1, tmp_path)
    output = capfd.readouterr().out
    assert "LEAKING: " in output
    assert output.count("| lesions in training and test |") == 4
    assert len(pd.read_csv(tmp_path / "pitfalls.csv")) == 12
    assert (tmp_path / "pitfalls.png").stat().st_size > 10_000
    assert output.count("resize: 99 photos") == 1
    assert "too few to compare" in output
    pitfalls.main(changes, "mobilenetv2", 1, tmp_path)
    assert "epoch 1/1" not in capfd.readouterr().err


def test_known_photos_are_in_both_test_sets_and_their_lesion_in_training() -> None:
    predictions = random_predictions()  # P0 of the lesion L0, and so on
    leaked = predictions.subset(np.arange(300) < 20)
    true = predictions.subset(np.arange(300) >= 10)
    assert pitfalls.known_photos(leaked, true, {"L5", "L12", "L15", "L30"}) == {"P12", "P15"}


def test_parameters_of_studies_are_read_as_dvc_does(tmp_path: Path) -> None:
    changes = ["lr=1e-4", "augment.hue=0", f"source={tmp_path}"]
    params = trainings.read_params(changes, "mobilenetv2")
    assert (params.lr, params.augment.hue, params.source) == (1e-4, 0, str(tmp_path))
    assert list(params.networks) == ["mobilenetv2"]
    assert params.starting_weights("mobilenetv2") == "imagenet"
    with pytest.raises(LesionsError, match="--set-param: lr is 7: it should be less than or equal"):
        trainings.read_params(["lr=7"], "mobilenetv2")


@pytest.mark.slow
def test_the_shortcut_is_tested_with_and_without_the_ruler(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = ["image_size=32", "epochs=1", "device=cpu", "precision=fp32"]
    shortcut.main(changes, "mobilenetv2", 0.8, tmp_path)
    output = capfd.readouterr().out
    assert "shortcut: a ruler on 11 training photos of melanoma" in output  # of 14
    assert output.count("| photos as they are |") == output.count("| rulers on 80% |") == 2
    table = pd.read_csv(tmp_path / "shortcut.csv")
    assert table["tested with"].tolist() == ["no ruler", "ruler"] * 2
    assert set(table["others predicted as melanoma"].str.split().str[-1]) == {"16"}
    assert (tmp_path / "shortcut.png").stat().st_size > 10_000
