"""Seeds: the pipeline with several seeds and splits; how much of a result is luck.

    python -m studies.seeds --count 3 -S epochs=2
    python -m studies.seeds --count 2 --splits 5
    python -m studies.seeds --read a/predictions.csv --read b/predictions.csv

Experiments seed-0, seed-1, … (with --splits: split-0-seed-0, …) run outside the workspace, which
stays as it is. They are kept (`dvc exp show`) and replace those of an earlier call; what has run
before comes from the cache. Without --splits all seeds share training, validation and test photos.
`--read` runs nothing: it reads the predictions of one network from runs that were made elsewhere,
one per seed, of one split.
"""

import io
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, NamedTuple

import dvc.api
import numpy as np
import pandas as pd
import typer
from scipy.special import ndtri

from lesions.common.errors import LesionsError, run_cli
from lesions.common.params import load_params
from lesions.common.types import Floats
from lesions.dataset.description import Description, load_description
from lesions.dataset.metadata import group_column, read_table
from lesions.evaluation.comparison import POWER
from lesions.evaluation.predictions import Predictions
from lesions.evaluation.tables import bootstrap, point_estimates
from lesions.reporting.render import number
from lesions.scoring.curves import ratio
from lesions.scoring.guards import MIN_CASES, MIN_GROUPS
from lesions.scoring.metrics import metrics_of

COLUMNS = ("image_id", "lesion_id", "actual", "predicted")
DEVIATIONS = ("photos", "seed", "data", "total")


def main(
    count: Annotated[int, typer.Option(min=2, help="How many seeds.")] = 3,
    splits: Annotated[int, typer.Option(min=1, help="How many splits, each with all seeds.")] = 1,
    set_param: Annotated[
        list[str] | None, typer.Option("--set-param", "-S", help="As in dvc exp run.")
    ] = None,
    read: Annotated[
        list[Path] | None, typer.Option(help="predictions.csv of one seed; run nothing.")
    ] = None,
) -> None:
    """Run the pipeline with several seeds and splits, and say how much of a result is luck."""
    params = load_params()
    dataset = load_description(params.dataset)
    if read:
        if len(read) < 2:
            raise LesionsError("--read: one file. Name those of two seeds or more.")
        tables = [read_table(path, *COLUMNS, *dataset.classes) for path in read]
        found = spread([[from_table(table, dataset) for table in tables]])
        print(f"{len(read)} seeds\n{as_text(found)}")
        return
    names = [[_name(split, seed, splits) for seed in range(count)] for split in range(splits)]
    for split, of_split in enumerate(names):
        for seed, name in enumerate(of_split):
            run_experiment(name, [f"seed={seed}", f"split_seed={split}", *(set_param or [])])
    revisions = {row["Experiment"]: row["rev"] for row in dvc.api.exp_show()}
    for model, network in params.networks.items():
        file = f"plots/{model}/predictions.csv"

        def read_predictions(name: str) -> Predictions:
            text = dvc.api.read(file, rev=revisions[name])  # noqa: B023
            return from_table(pd.read_csv(io.StringIO(text), dtype=str), dataset)

        found = spread([[read_predictions(name) for name in of_split] for of_split in names])
        print(f"\n{network.title}, {count} seeds, {splits} splits\n{as_text(found)}")


def _name(split: int, seed: int, splits: int) -> str:
    return f"seed-{seed}" if splits == 1 else f"split-{split}-seed-{seed}"


def run_experiment(name: str, set_param: Sequence[str]) -> None:
    """Run an experiment outside the workspace; end the program if it fails."""
    dvc = [sys.executable, "-m", "dvc"]
    changes = [word for one in set_param for word in ("--set-param", one)]
    subprocess.run([*dvc, "exp", "remove", name], check=False, capture_output=True)
    command = [*dvc, "exp", "run", "--temp", "--name", name, *changes]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"{name} failed. Earlier runs are kept: fix the cause and run this again.")


def from_table(table: pd.DataFrame, dataset: Description) -> Predictions:
    """Make predictions from the text of predictions.csv."""
    probabilities = table[list(dataset.classes)].to_numpy(dtype=np.float64)
    ids = dict.fromkeys(("image_id", "lesion_id", group_column(table)))
    photos = table[list(ids)].assign(dx=table["actual"])
    labels, predicted = (dataset.labels_of(table[name]) for name in ("actual", "predicted"))
    return Predictions(dataset, photos, labels, probabilities, probabilities, predicted)


class Components(NamedTuple):
    """Variances of one metric, by their cause."""

    photos: float  # of the test photos, whatever the seed
    seed: float  # between seeds on the same photos
    data: float  # of the validation and training photos; NaN with one split
    total: float  # of one run with another seed, and on other photos: of all that is known
    paired: float  # of the difference between two seeds, over the test photos


def components(points: Floats, samples: Floats) -> Components:
    """Separate what the test photos, the seed, and the other photos change, each counted once.

    A metric of one run is a sum of effects of the split's test photos P, of its validation and
    training photos D, of the seed S, and of P and S together, PS: some seeds suit some photos.
    Resampling the photos of one run varies P and PS; resampling the difference of two runs varies
    PS twice; seeds on the same photos vary S and PS. So, with variances,

        PS = mean over pairs of seeds of var(resampled difference) / 2
        photos = mean of var(resampled metric) - PS
        seed = mean over splits of the variance between seeds     (S + PS)
        total = photos + seed                                     (one split)

    and the means of splits vary by P + D + seed / seeds (one-way analysis of variance with random
    effects, Searle, Casella and McCulloch 1992, chapter 3):

        P + D = variance between the means of splits - seed / seeds
        data = P + D - photos,   total = P + D + seed

    Negative estimates become 0. Splits of one dataset share most of their training photos, so
    `data` is too small, and no estimator without bias is known (Nadeau and Bengio 2003, doi
    10.1023/A:1024068626366).

    Args:
        points: (splits, seeds) the metric of each run.
        samples: (splits, seeds, b) the metric on b resamples of each split's test photos, the same
            for all seeds.
    """
    splits, seeds = points.shape
    pairs = list(combinations(range(seeds), 2))
    paired = float(np.mean([_variance(samples[:, i] - samples[:, j]) for i, j in pairs]))
    photos = np.maximum(0, _variance(samples).mean() - paired / 2)
    seed = points.var(axis=1, ddof=1).mean()
    if splits == 1:
        return Components(photos, seed, np.nan, photos + seed, paired)
    of_split = np.maximum(0, points.mean(axis=1).var(ddof=1) - seed / seeds)
    return Components(photos, seed, np.maximum(0, of_split - photos), of_split + seed, paired)


def _variance(samples: Floats) -> Floats:
    """Compute the variance over the last axis without what is NaN; NaN if all is."""
    known = np.isfinite(samples).sum(axis=-1)
    mean = ratio(np.nansum(samples, axis=-1), known)
    return ratio(np.nansum((samples - mean[..., None]) ** 2, axis=-1), known)


def spread(runs: Sequence[Sequence[Predictions]]) -> pd.DataFrame:
    """Say how much of each key metric is luck.

    Args:
        runs: of each split, the predictions of one network for the same photos, one per seed.

    Returns:
        One row per key metric: metric, title, mean; standard deviations photos, seed, data and
        total, the roots of `components`; and detectable, the least true difference between two
        networks that differ as two seeds do which such a test set would show as significant with a
        probability of POWER, corrected for all metrics that are compared. NaN where the photos are
        too few.

    Raises:
        LesionsError: the photos of a split differ.
    """
    for of_split in runs:
        if len({tuple(one.photos["image_id"]) for one in of_split}) > 1:
            raise LesionsError("the seeds were not tested on the same photos.")
    points = [[point_estimates(one) for one in of_split] for of_split in runs]
    samples = [[bootstrap(one) for one in of_split] for of_split in runs]
    metrics = metrics_of(runs[0][0].dataset)
    compared = sum(metric.compared for metric in metrics.values())
    quantiles = ndtri(1 - 0.05 / compared / 2) + ndtri(POWER)
    rows = []
    for key, metric in metrics.items():
        if not metric.is_key:
            continue
        values = np.array([[one[key] for one in of_split] for of_split in points])
        found = components(values, np.array([[one[key] for one in part] for part in samples]))
        rows.append(
            {
                "metric": key,
                "title": metric.title,
                "mean": values.mean(),
                **{name: np.sqrt(getattr(found, name)) for name in DEVIATIONS},
                "detectable": quantiles * np.sqrt(found.paired),
            }
        )
    return pd.DataFrame(rows)


def as_text(table: pd.DataFrame) -> str:
    """Lay out the table as Markdown."""
    lines = [
        "| metric | mean | sd: test photos | sd: seed | sd: other photos | sd: all | detectable |",
        "|---|---|---|---|---|---|---|",
    ]
    for _, row in table.iterrows():
        numbers = [number(row[name]) for name in ("mean", *DEVIATIONS, "detectable")]
        lines.append(f"| {' | '.join([row['title'], *numbers])} |")
    if table["photos"].isna().any():
        lines.append(f"–: fewer than {MIN_GROUPS} test lesions, or {MIN_CASES} cases, are too few.")
    elif table["data"].isna().all():
        lines.append("Other photos, of training and validation: only several splits show it.")
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(main)
