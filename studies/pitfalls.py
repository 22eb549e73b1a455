"""Pitfalls: what common mistakes of evaluation report, and what is true.

    make pitfalls                                          on the synthetic sample, in minutes
    python -m studies.pitfalls -S source=FOLDER -S image_size=96 -S balance=sqrt    in hours

It trains one network from the same start with an honest split (`holdout: any-lesion`) and with a
leaking one (`holdout: any-photo`), for several seeds, and compares:

- **Lesions in training and test**: the leaking model's metrics on its own test photos, with the
  honest model's on its own. Both test sets are drawn from the same photos.
- **The same photos, lesion known**: both models' metrics on those photos of both test sets whose
  lesion the leaking model knows from other photos; left out if they are fewer than 30.
- **Test photos augmented**: the honest model's metrics on test photos that were changed like
  training photos, with those on the photos themselves.
- **Reported where the epoch was chosen**: the honest model's metrics on the validation photos, by
  which its epoch and its calibration were chosen, with those on the test photos.

Differences have 95 % intervals from a bootstrap over lesions; they are paired where both sides have
the same photos, and do not cover the differences between trainings. What has been trained is kept
in `--folder` and not trained again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer
from matplotlib.figure import Figure

from lesions.common.artifacts import write_csv
from lesions.common.errors import run_cli
from lesions.common.params import Params, load_params
from lesions.common.types import Floats
from lesions.dataset.description import load_description
from lesions.dataset.metadata import read_table
from lesions.dataset.photos import PhotoArray
from lesions.dataset.splits import find_leak
from lesions.evaluation.predictions import Predictions, predict_test_set
from lesions.evaluation.tables import bootstrap, point_estimates
from lesions.networks import hardware
from lesions.networks.augmentation import augment, random_changes
from lesions.networks.model_file import load
from lesions.reporting.pictures import write_picture
from lesions.reporting.render import interval, number
from lesions.scoring.intervals import percentile_interval
from lesions.scoring.metrics import metrics_of
from studies.trainings import SetParam, read_params, train

HONEST, LEAKING = "any-lesion", "any-photo"
MIN_PHOTOS = 30  # that both test sets share, for a comparison
PART = 256  # photos that are augmented at a time


class Pitfall(NamedTuple):
    """A pitfall with one seed: what is reported, and what is true."""

    name: str
    reported: Predictions
    true: Predictions
    paired: bool  # the same photos


def main(
    set_param: SetParam = None,
    model: Annotated[str, typer.Option(help="A network in params.yaml.")] = "mobilenetv2",
    seeds: Annotated[int, typer.Option(min=1)] = 2,
    folder: Annotated[Path, typer.Option(help="Where trained models are kept.")] = Path("pitfalls"),
) -> None:
    """Train with and without a leak, and print what each pitfall reports and what is true."""
    params = read_params(set_param or [], model)
    pitfalls: list[Pitfall] = []
    for seed in range(seeds):
        honest, leaking = (
            train(folder, params.model_copy(update={"holdout": holdout, "seed": seed}), model)
            for holdout in (HONEST, LEAKING)
        )
        pitfalls += find_pitfalls(honest, leaking, load_params(honest / "params.yaml"), model)
    table = compare(pitfalls)
    write_csv(folder / "pitfalls.csv", table)
    write_picture(folder / "pitfalls.png", draw(table, params.networks[model].title))
    print(describe_leak(leaking))
    print(as_text(table))
    print(f"{params.networks[model].title}, mean of {seeds} seeds; {folder}/pitfalls.csv and .png")


def find_pitfalls(honest: Path, leaking: Path, params: Params, model: str) -> Iterator[Pitfall]:
    """Predict what each pitfall reports, and what is true, with the models of one seed."""
    used = hardware.set_up(params.device, "fp32", params.deterministic)

    def predict(place: Path, subset: str, images: Path | None = None) -> Predictions:
        trained = load(place / f"models/{model}.safetensors", used, model)
        table = place / f"data/split/{subset}.csv"
        array = images or place / "data/resized"
        dataset = load_description(params.dataset)
        return predict_test_set(trained, dataset, array, table, params.decision, params.views)

    true, leaked = predict(honest, "test"), predict(leaking, "test")
    yield Pitfall("lesions in training and test", leaked, true, False)
    known = read_table(leaking / "data/split/train.csv", "lesion_id")["lesion_id"]
    ids = known_photos(leaked, true, set(known))
    if len(ids) < MIN_PHOTOS:
        print(f"the test sets share {len(ids)} photos of known lesions: too few to compare")
    else:
        reported, honest_too = (
            one.subset(one.photos["image_id"].isin(ids).to_numpy()) for one in (leaked, true)
        )
        yield Pitfall("the same photos, lesion known", reported, honest_too, True)
    changed = augment_test_photos(honest, params)
    yield Pitfall("test photos augmented", predict(honest, "test", changed), true, True)
    yield Pitfall("reported where the epoch was chosen", predict(honest, "val"), true, False)


def known_photos(leaked: Predictions, true: Predictions, known: set[str]) -> set[str]:
    """Find the photos of both test sets whose lesion the leaking model knows: their image_ids."""
    photos = leaked.photos[leaked.photos["lesion_id"].isin(known)]
    return set(photos["image_id"]) & set(true.photos["image_id"])


def augment_test_photos(place: Path, params: Params) -> Path:
    """Write the test photos, changed like training photos, to an array of their own."""
    photos = PhotoArray(place / "data/resized")
    ids = read_table(place / "data/split/test.csv", "image_id")["image_id"]
    rng = np.random.default_rng(params.seed)
    parts = []
    for rows in np.array_split(photos.rows(ids), max(1, len(ids) // PART)):
        changes = torch.from_numpy(random_changes(len(rows), params.augment, rng))
        changed = augment(torch.from_numpy(photos.images[rows]), changes, params.augment)
        parts.append((changed * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    folder = place / "data/augmented"
    folder.mkdir(exist_ok=True)
    np.save(folder / "images.npy", np.concatenate(parts))
    write_csv(folder / "image_ids.csv", ids.to_frame())
    return folder


def compare(pitfalls: list[Pitfall]) -> pd.DataFrame:
    """Compare what is reported with what is true: means over seeds.

    Returns:
        One row per pitfall and metric: mistake, metric, reported, true, difference, low, high.
    """
    rows = []
    names = list(dict.fromkeys(pitfall.name for pitfall in pitfalls))
    for name in names:
        of_name = [pitfall for pitfall in pitfalls if pitfall.name == name]
        reported = [point_estimates(pitfall.reported) for pitfall in of_name]
        true = [point_estimates(pitfall.true) for pitfall in of_name]
        resampled = [differences(pitfall) for pitfall in of_name]
        for metric in metrics_of(of_name[0].true.dataset).values():
            if not metric.compared:
                continue
            told = float(np.mean([values[metric.key] for values in reported]))
            real = float(np.mean([values[metric.key] for values in true]))
            low, high = percentile_interval(np.mean([one[metric.key] for one in resampled], axis=0))
            row = {"pitfall": name, "metric": metric.title, "reported": told, "true": real}
            rows.append({**row, "difference": told - real, "low": low, "high": high})
    return pd.DataFrame(rows).round(4)


def differences(pitfall: Pitfall) -> dict[str, Floats]:
    """Resample the lesions of both sides: each metric's differences.

    With other photos on each side, the resamples of one are reversed, which makes them independent.
    """
    reported, true = bootstrap(pitfall.reported), bootstrap(pitfall.true)
    order = slice(None) if pitfall.paired else slice(None, None, -1)
    return {name: reported[name] - true[name][order] for name in reported}


def describe_leak(place: Path) -> str:
    """Say how many test photos leak."""
    train_rows, test = (
        read_table(place / f"data/split/{name}.csv", "lesion_id") for name in ("train", "test")
    )
    return find_leak(train_rows, test, "test").warning


def as_text(table: pd.DataFrame) -> str:
    """Lay out the table as Markdown."""
    lines = ["| pitfall | metric | reported | true | difference |", "|---|---|---|---|---|"]
    for _, row in table.iterrows():
        values = [number(row[name]) for name in ("reported", "true", "difference")]
        cells = [row["pitfall"], row["metric"], *values]
        lines.append(f"| {' | '.join(cells)} ({interval(row)}) |")
    return "\n".join(lines)


def draw(table: pd.DataFrame, title: str) -> Figure:
    """Draw the differences with their intervals, one panel per pitfall."""
    names = list(table["pitfall"].unique())
    figure = Figure(figsize=(8, 1.7 * len(names)), layout="constrained")
    figure.suptitle(f"{title}: what is reported, minus what is true")
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(panels, names, strict=True):
        rows = table[table["pitfall"] == name].iloc[::-1]
        places = range(len(rows))
        axis.axvline(0, color="black", linewidth=1)
        axis.hlines(places, rows["low"], rows["high"], color="#1b6ca8", linewidth=2)
        axis.plot(rows["difference"], places, "o", color="#1b6ca8")
        axis.set_yticks(places, rows["metric"])
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.set_title(name, loc="left", fontsize=11)
    return figure


if __name__ == "__main__":
    run_cli(main)
