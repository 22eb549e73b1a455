"""Seeds: the pipeline with several seeds, and mean and standard deviation of each key metric.

`python -m benchmarks.seeds --count 3 -S epochs=2`: experiments seed-0, seed-1, … run outside the
workspace, which stays as it is. They are kept (`dvc exp show`) and replace those of an earlier
call; what has run before comes from the cache. The split stays: `split_seed` is another parameter.
"""

import subprocess
import sys
from typing import Annotated

import dvc.api
import pandas as pd
import typer

from lesions.common.params import load_params
from lesions.networks.key_metrics import NAMES


def collect(names: list[str]) -> pd.DataFrame:
    """Read the key metrics on test of experiments: columns model, experiment and each metric."""
    shown = {row["Experiment"]: row for row in dvc.api.exp_show() if row["Experiment"] in names}
    return pd.DataFrame(
        {
            "model": network.title,
            "experiment": name,
            **{metric: shown[name].get(f"metrics/test/{model}.json:{metric}") for metric in NAMES},
        }
        for model, network in load_params().networks.items()
        for name in names
    )


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Write mean ± standard deviation (of a sample: n - 1) of each metric, one column per model."""
    by_model = table.groupby("model", sort=False)[list(NAMES)]
    mean, spread = by_model.mean().T, by_model.std().T
    return mean.map("{:.3f}".format) + " ± " + spread.map("{:.3f}".format)


def main(
    count: Annotated[int, typer.Option(min=2, help="How many seeds.")] = 3,
    set_param: Annotated[
        list[str] | None, typer.Option("--set-param", "-S", help="As in dvc exp run.")
    ] = None,
) -> None:
    """Run the pipeline for seeds 0, 1, … and print mean ± sd of each metric."""
    names = [f"seed-{seed}" for seed in range(count)]
    for seed, name in enumerate(names):
        changes = [word for one in set_param or [] for word in ("--set-param", one)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name]
        subprocess.run(
            [sys.executable, "-m", "dvc", "exp", "remove", name], check=False, capture_output=True
        )
        done = subprocess.run([*command, "--set-param", f"seed={seed}", *changes], check=False)
        if done.returncode:
            sys.exit(f"{name} failed. Earlier runs are kept: fix the cause and run this again.")
    table = collect(names)
    print(table.to_string(index=False))
    print(f"\nmean ± sd of {count} seeds\n{summary(table).to_string()}")


if __name__ == "__main__":
    typer.run(main)
