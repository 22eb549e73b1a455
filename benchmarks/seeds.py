"""Seeds: the study with several seeds, and the mean and spread of every headline figure.

`python -m benchmarks.seeds --count 3 -S epochs=2`: experiments seed-0, seed-1, … are run beside
the workspace, which stays as it is, and kept (`dvc exp show`) in place of those of an earlier call;
what has run before comes from the cache. The split stays: `split_seed` is another parameter.
"""

import subprocess
import sys
from typing import Annotated

import dvc.api
import pandas as pd
import typer

from lesions.networks import ARCHITECTURES
from lesions.scoring import HEADLINE


def collect(names: list[str]) -> pd.DataFrame:
    """Read the headline figures of experiments: columns model, experiment and each figure."""
    shown = {row["Experiment"]: row for row in dvc.api.exp_show() if row["Experiment"] in names}
    return pd.DataFrame(
        {
            "model": architecture.title,
            "experiment": name,
            **{figure: shown[name].get(f"metrics/{model}.json:{figure}") for figure in HEADLINE},
        }
        for model, architecture in ARCHITECTURES.items()
        for name in names
    )


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Write mean ± standard deviation (of a sample: n - 1) of each figure, a column a model."""
    by_model = table.groupby("model", sort=False)[list(HEADLINE)]
    mean, spread = by_model.mean().T, by_model.std().T
    return mean.map("{:.3f}".format) + " ± " + spread.map("{:.3f}".format)


def main(
    count: Annotated[int, typer.Option(min=2, help="How many seeds.")] = 3,
    set_param: Annotated[
        list[str] | None, typer.Option("--set-param", "-S", help="As of dvc exp run.")
    ] = None,
) -> None:
    """Run the study for seeds 0, 1, … and print mean ± sd of each figure."""
    names = [f"seed-{seed}" for seed in range(count)]
    for seed, name in enumerate(names):
        changes = [word for one in set_param or [] for word in ("--set-param", one)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name]
        subprocess.run(
            [sys.executable, "-m", "dvc", "exp", "remove", name], check=False, capture_output=True
        )
        done = subprocess.run([*command, "--set-param", f"seed={seed}", *changes], check=False)
        if done.returncode:
            sys.exit(f"{name} failed. What ran before it is kept: mend it and run this again.")
    table = collect(names)
    print(table.to_string(index=False))
    print(f"\nmean ± sd of {count} seeds\n{summary(table).to_string()}")


if __name__ == "__main__":
    typer.run(main)
