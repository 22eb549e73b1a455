"""Report: the last run on one page. Not a stage of dvc.yaml, because it names the commit."""

import json
from pathlib import Path

import pandas as pd

from lesions.common.artifacts import write_text
from lesions.common.errors import run_cli
from lesions.common.params import load_params
from lesions.dataset.metadata import read_table
from lesions.dataset.photos import PhotoArray
from lesions.networks import hardware
from lesions.networks.model_file import load
from lesions.reporting.mistakes import build_mistakes
from lesions.reporting.report import build_report
from lesions.reporting.results import read_results

FOLDER = Path("dvc_plots")


def main() -> None:
    """Write report.html, report.json and mistakes.html to dvc_plots/; all open offline."""
    params = load_params()
    page = FOLDER / "report.html"
    results = read_results(list(params.networks), list(params.external_tests))
    write_text(FOLDER / "report.json", json.dumps(results, indent=2) + "\n")
    write_text(page, build_report(results))
    print(page)

    # The page of mistakes needs the features of all training photos, which takes longer.
    used = hardware.set_up(params.device, params.precision, params.deterministic)
    mistakes = build_mistakes(
        {name: load(Path(f"models/{name}.safetensors"), used, name) for name in params.networks},
        PhotoArray(Path("data/resized")),
        read_table(Path("data/split/train.csv"), "image_id", "lesion_id", "dx"),
        read_table(Path("data/split/test.csv"), "image_id", "lesion_id", "dx"),
        {name: pd.read_csv(f"plots/{name}/predictions.csv") for name in params.networks},
    )
    write_text(FOLDER / "mistakes.html", mistakes)
    print(FOLDER / "mistakes.html")


if __name__ == "__main__":
    run_cli(main)
