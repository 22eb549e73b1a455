import dataclasses
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from helpers import DATASET, ROOT, metadata_of, random_predictions

from lesions.common.artifacts import write_csv
from lesions.common.errors import LesionsError
from lesions.common.types import Features, Labels
from lesions.evaluation.predictions import as_table
from lesions.evaluation.tables import bootstrap, point_estimates
from studies import choosing, pitfalls, rules, seeds, shortcut, trainings


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


def made_up(lesions: int, views: int) -> tuple[Features, Labels, npt.NDArray[np.str_]]:
    """Make features that tell lesions apart well, and classes badly; half have one photo."""
    rng = np.random.default_rng(0)
    counts = np.where(np.arange(lesions) % 2, views, 1)
    of_photo = np.repeat(np.arange(lesions), counts)
    classes = rng.integers(0, 3, lesions)
    centres = rng.normal(size=(lesions, 16)) + 1.5 * np.eye(3, 16)[classes]
    features = centres[of_photo] + 0.3 * rng.normal(size=(len(of_photo), 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), classes[of_photo], of_photo.astype(str)


def measure_leak(lesions: int, views: int) -> tuple[list[pitfalls.Leak], float]:
    """Measure the leak of such features, and the share of neighbours of one lesion."""
    features, labels, groups = made_up(lesions, views)
    leaking, honest = pitfalls.neighbours(features, labels, groups, 0, "lesion")
    leaks = pitfalls.measure(labels, groups, leaking, honest, 3, "lesion")
    return leaks, float((groups[leaking] == groups).mean())


def test_a_leak_is_seen_where_lesions_have_several_photos_and_nowhere_else() -> None:
    leaks, shared = measure_leak(300, 3)
    whole, once, several = leaks
    assert (whole.part, once.part) == ("all", "lesions with one photo")
    assert once.photos + several.photos == whole.photos == 600
    assert several.low > 0.1
    assert whole.low > 0.05
    assert once.low < 0  # no gain
    assert 0.5 < shared < 0.75  # three quarters of the photos have another of their lesion
    assert measure_leak(300, 3) == (leaks, shared)
    text = pitfalls.as_text(leaks, "lesion")
    difference = several.leaking - several.honest
    assert f"| lesions with several | 450 | {several.leaking:.3f} |" in text
    assert f"| {difference:.3f} ({several.low:.3f} to {several.high:.3f}) |" in text


def test_without_several_photos_there_is_nothing_to_leak() -> None:
    features, _, groups = made_up(200, 1)
    leaks, shared = measure_leak(200, 1)
    assert [leak.part for leak in leaks] == ["all", "lesions with one photo"]
    assert shared == 0
    with pytest.raises(LesionsError, match="a class has 2 lesions; 5 are needed"):
        pitfalls.neighbours(features[:6], np.repeat([0, 1, 2], 2), groups[:6], 0, "lesion")


def test_colours_are_counted_and_a_photo_is_most_like_itself_in_other_positions() -> None:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    turned = np.concatenate([photos, photos[:, ::-1, :, :]])
    features = pitfalls.count_colours(turned, np.arange(6))
    assert features.shape == (6, pitfalls.COLOURS**3)
    assert np.allclose(np.linalg.norm(features, axis=1), 1)
    assert np.allclose(features[:3], features[3:])
    red, blue = (np.full((1, 32, 32, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    pure = pitfalls.count_colours(np.concatenate([red, blue]), np.arange(2))
    assert pure.max(axis=1).tolist() == [1, 1]
    assert pure.argmax(axis=1).tolist() == [7, 7 * 64]


def test_a_test_set_that_chooses_is_too_good_and_a_validation_set_is_not() -> None:
    rng = np.random.default_rng(0)
    lesions = np.repeat(np.arange(300), 2)
    equal = rng.random((50, 600)) < 0.7  # models that differ by luck alone
    on_test, on_validation = choosing.measure(equal, lesions, 100, seed=0)
    assert on_test.reported - on_test.new > on_test.low > 0.03
    assert on_validation.low < 0 < on_validation.high
    assert on_test.new == pytest.approx(0.7, abs=0.03)
    again = choosing.measure(equal, lesions, 100, seed=0)
    assert again == [on_test, on_validation]
    # Nothing to choose from: nothing gained.
    one, _ = choosing.measure(equal[:1], lesions, 100, seed=0)
    assert one.low < 0 < one.high
    text = choosing.as_text([on_test])
    assert f"| the test set | {on_test.reported:.3f} | {on_test.new:.3f} |" in text


def test_the_mean_of_the_seeds_is_one_more_rule() -> None:
    one, other = random_predictions(seed=0), random_predictions(seed=1)
    prevalence = np.full(7, 1 / 7)
    found = [
        {rules.AS_TRAINED: rules.Rule({"test": each.probabilities}, prevalence)}
        for each in (one, dataclasses.replace(other, labels=one.labels))
    ]
    mean = rules.Rule({"test": (one.probabilities + other.probabilities) / 2}, prevalence)
    text = rules.as_text(found, mean, one.photos, "test", "most-probable", one.dataset)
    header, _, first, last = text.splitlines()
    assert header == "| rule | run 0 | run 1 |"
    value = point_estimates(one)["balanced_accuracy"]
    assert first.startswith(f"| as trained | {value:.3f} |")
    assert last.startswith("| mean of the seeds | ")
    assert last.count(" to ") == 2


@pytest.mark.slow
@pytest.mark.xdist_group("project")
def test_rules_are_compared_on_validation_and_test(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules.main("mobilenetv2", [project, project])
    output = capsys.readouterr().out
    for title in ("validation, most-probable", "test, balanced"):
        assert title in output
    assert output.count("| four views |") == output.count("| refitted last layer |") == 4
    other = shutil.copytree(project / "data/split", tmp_path / "data/split")
    table = pd.read_csv(other / "val.csv", dtype=str)
    write_csv(other / "val.csv", table.iloc[1:])
    with pytest.raises(LesionsError, match="not have the same validation photos"):
        rules.main("mobilenetv2", [project, tmp_path])


def test_a_common_class_is_thinned_by_whole_lesions() -> None:
    table = metadata_of({"nv": [3] * 40, "mel": [2] * 5})
    chosen = pitfalls.choose(table, 30, seed=0)
    sizes = chosen["lesion_id"].value_counts()
    assert sizes.equals(table["lesion_id"].value_counts()[sizes.index])
    assert (chosen["dx"] == "mel").sum() == 10
    assert 30 <= (chosen["dx"] == "nv").sum() <= 33
    assert set(chosen["image_id"]) != set(pitfalls.choose(table, 30, seed=1)["image_id"])


@pytest.mark.slow
@pytest.mark.xdist_group("project")
def test_the_leak_of_the_sample_is_measured_in_its_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    pitfalls.main("mobilenetv2", 0, 1200)
    output = capsys.readouterr().out
    assert "99 photos of 84 lesions at 32 px; counts of 512 colours; 5 folds" in output
    assert "| lesions with several |" in output


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
    assert output.count("| photos as they are |") == output.count("| rulers on 80% |") == 3
    table = pd.read_csv(tmp_path / "shortcut.csv")
    kinds = ["no rulers", "rulers as in training", "rulers on all"]
    assert table["tested with"].tolist() == kinds * 2
    others = table["others predicted as melanoma"].tolist()  # as in training, these have no rulers
    assert (others[0], others[3]) == (others[1], others[4])
    place = next(tmp_path.glob("mobilenetv2-*"))
    photos = shortcut.held_out_photos(place, DATASET, "melanoma", 0.5, 0)
    cases = photos.labels == DATASET.classes.index("mel")
    assert photos.planted.sum() == round(0.5 * cases.sum()) > 0
    assert not photos.planted[~cases].any()
    assert set(table["others predicted as melanoma"].str.split().str[-1]) == {"16"}
    assert (tmp_path / "shortcut.png").stat().st_size > 10_000
