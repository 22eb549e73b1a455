"""Official: compares balanced accuracy and ROC AUC with the ISIC challenge's own scorer.

The scorer needs its own environment (its release breaks with pandas 3):

    python -m venv .isic && .isic/bin/pip install isic-challenge-scoring 'pandas<3'
    python -m benchmarks.official .isic/bin/isic-challenge-scoring

Both read plots/<model>/predictions.csv of the last run.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import typer

from lesions.common.artifacts import write_csv
from lesions.common.params import load_params

ISIC_COLUMNS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
TOLERANCE = 1e-4  # predictions.csv and per_class.csv are rounded


def main(scorer: Path) -> None:
    """Compare every model's metrics with those of SCORER, the program isic-challenge-scoring."""
    worst = 0.0
    # The scorer takes the most probable diagnosis, whatever `decision` says.
    decisions = pd.read_csv("plots/decisions.csv")
    metrics = decisions.set_index(["model", "decision", "metric"])["value"]
    per_class = pd.read_csv("plots/per_class.csv").set_index(["model", "dx"])
    for model, network in load_params().networks.items():
        table = pd.read_csv(f"plots/{model}/predictions.csv")
        codes = [column.lower() for column in ISIC_COLUMNS]
        image = table[["image_id"]].set_axis(["image"], axis=1)
        with tempfile.TemporaryDirectory() as folder:
            truth, predicted = Path(folder) / "truth.csv", Path(folder) / "prediction.csv"
            one_hot = pd.get_dummies(table["actual"]).reindex(columns=codes, fill_value=0)
            write_csv(truth, image.join(one_hot.astype(float).set_axis(ISIC_COLUMNS, axis=1)))
            write_csv(predicted, image.join(table[codes].set_axis(ISIC_COLUMNS, axis=1)))
            command = [str(scorer), "--output", "json", "classification"]
            command += [str(truth), str(predicted)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        official = json.loads(done.stdout)
        rows = {
            "balanced accuracy": (
                metrics[network.title, "most-probable", "balanced_accuracy"],
                official["overall"],
            )
        }
        for column, code in zip(ISIC_COLUMNS, codes, strict=True):
            if (table["actual"] == code).any():
                ours = per_class.loc[(network.title, code), "roc_auc"]
                rows[f"ROC AUC {code}"] = (ours, official["per_category"]["auc"][column])
        compared = pd.DataFrame(rows, index=["ours", "official"]).T
        compared["difference"] = (compared["ours"] - compared["official"]).abs()
        worst = max(worst, compared["difference"].max())
        print(f"{network.title}, {len(table)} photos\n{compared.round(5).to_string()}\n")
    print(f"largest difference {worst:.1e}")
    sys.exit(int(worst > TOLERANCE))


if __name__ == "__main__":
    typer.run(main)
