"""Seeds: the pipeline with several seeds; how much the seed and the test photos change a result.

    python -m studies.seeds --count 3 -S epochs=2
    python -m studies.seeds --read a/predictions.csv --read b/predictions.csv

Experiments seed-0, seed-1, … run outside the workspace, which stays as it is. They are kept (`dvc
exp show`) and replace those of an earlier call; what has run before comes from the cache. The split
stays: `split_seed` is another parameter. `--read` runs nothing: it reads the predictions of one
network from runs that were made elsewhere, one per seed.
"""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import dvc.api
import numpy as np
import pandas as pd
import typer

from lesions.common.errors import LesionsError, run_cli
from lesions.common.params import load_params
from lesions.dataset.description import Description, load_description
from lesions.dataset.metadata import group_column, read_table
from lesions.evaluation.predictions import Predictions
from lesions.evaluation.tables import bootstrap, point_estimates
from lesions.reporting.render import number
from lesions.scoring.intervals import MIN_CASES, MIN_GROUPS
from lesions.scoring.metrics import metrics_of

COLUMNS = ("image_id", "lesion_id", "actual", "predicted")


def main(
    count: Annotated[int, typer.Option(min=2, help="How many seeds.")] = 3,
    set_param: Annotated[
        list[str] | None, typer.Option("--set-param", "-S", help="As in dvc exp run.")
    ] = None,
    read: Annotated[
        list[Path] | None, typer.Option(help="predictions.csv of one seed; run nothing.")
    ] = None,
) -> None:
    """Run the pipeline for seeds 0, 1, … and say how much the seed and the test photos change."""
    params = load_params()
    dataset = load_description(params.dataset)
    if read:
        if len(read) < 2:
            raise LesionsError("--read: one file. Name those of two seeds or more.")
        tables = [read_table(path, *COLUMNS, *dataset.classes) for path in read]
        found = spread([from_table(table, dataset) for table in tables])
        print(f"{len(read)} seeds\n{as_text(found)}")
        return
    names = [f"seed-{seed}" for seed in range(count)]
    run_experiments(names, set_param or [])
    revisions = {row["Experiment"]: row["rev"] for row in dvc.api.exp_show()}
    for model, network in params.networks.items():
        file = f"plots/{model}/predictions.csv"
        texts = [dvc.api.read(file, rev=revisions[name]) for name in names]
        tables = [pd.read_csv(io.StringIO(text), dtype=str) for text in texts]
        found = spread([from_table(table, dataset) for table in tables])
        print(f"\n{network.title}, {count} seeds\n{as_text(found)}")


def run_experiments(names: Sequence[str], set_param: Sequence[str]) -> None:
    """Run one experiment per seed; end the program if one fails."""
    for seed, name in enumerate(names):
        changes = [word for one in set_param for word in ("--set-param", one)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name]
        subprocess.run(
            [sys.executable, "-m", "dvc", "exp", "remove", name], check=False, capture_output=True
        )
        done = subprocess.run([*command, "--set-param", f"seed={seed}", *changes], check=False)
        if done.returncode:
            sys.exit(f"{name} failed. Earlier runs are kept: fix the cause and run this again.")


def from_table(table: pd.DataFrame, dataset: Description) -> Predictions:
    """Make predictions from the text of predictions.csv."""
    probabilities = table[list(dataset.classes)].to_numpy(dtype=np.float64)
    ids = dict.fromkeys(("image_id", "lesion_id", group_column(table)))
    photos = table[list(ids)].assign(dx=table["actual"])
    labels, predicted = (dataset.labels_of(table[name]) for name in ("actual", "predicted"))
    return Predictions(dataset, photos, labels, probabilities, probabilities, predicted)


def spread(seeds: Sequence[Predictions]) -> pd.DataFrame:
    """Separate what the test photos and what the seed change.

    Args:
        seeds: predictions of one network for the same photos, one per seed.

    Returns:
        One row per key metric: metric; mean over the seeds; and standard deviations (of a sample: n
        - 1): photos, of one run over resamples of the lesions, NaN if they are too few; seed,
        between the seeds; and both, of one run with another seed on other photos, the root of the
        sum of their squares.

    Raises:
        LesionsError: the photos differ.
    """
    if len({tuple(one.photos["image_id"]) for one in seeds}) > 1:
        raise LesionsError("the seeds were not tested on the same photos.")
    points = pd.DataFrame([point_estimates(one) for one in seeds])
    resampled = [bootstrap(one) for one in seeds]  # the same lesions for each seed
    rows = []
    metrics = metrics_of(seeds[0].dataset)
    for name in (key for key, metric in metrics.items() if metric.is_key):
        photos = float(np.mean([pd.Series(one[name]).std() for one in resampled]))
        seed = float(points[name].std())
        deviations = {"photos": photos, "seed": seed, "both": float(np.hypot(photos, seed))}
        title = metrics[name].title
        rows.append({"metric": name, "title": title, "mean": points[name].mean(), **deviations})
    return pd.DataFrame(rows)


def as_text(table: pd.DataFrame) -> str:
    """Lay out the table as Markdown."""
    lines = [
        "| metric | mean | sd: test photos | sd: seed | sd: both |",
        "|---|---|---|---|---|",
    ]
    for _, row in table.iterrows():
        numbers = [number(row[name]) for name in ("mean", "photos", "seed", "both")]
        lines.append(f"| {' | '.join([row['title'], *numbers])} |")
    if table["photos"].isna().any():
        lines.append(f"–: fewer than {MIN_GROUPS} test lesions, or {MIN_CASES} cases, are too few.")
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(main)
