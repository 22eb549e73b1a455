"""The report: all results of the last run on one page that opens offline."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
import yaml

from lesions.common.errors import LesionsError
from lesions.common.params import Params
from lesions.dataset.diagnoses import DIAGNOSES
from lesions.evaluation.comparison import verdicts
from lesions.networks.model_file import read_card
from lesions.reporting.templates import environment

TABLES = ("metrics", "per_class", "comparison", "operating_points")


def build_report(models: list[str], external_tests: list[str]) -> str:
    """Fill templates/report.html from metrics/, plots/, models/ and dvc.lock.

    Args:
        models: all that were evaluated.
        external_tests: the names of the external test sets.

    Raises:
        LesionsError: a result is missing, or the results are of other models.
    """
    # The results, each as DVC's stages wrote it.
    cards = {model: read_card(Path(f"models/{model}.safetensors")) for model in models}
    titles = {model: card.network.title for model, card in cards.items()}
    tables = {name: _read_table(f"plots/{name}.csv") for name in TABLES}
    if (evaluated := set(tables["metrics"]["model"])) != set(titles.values()):
        raise LesionsError(
            f"plots/metrics.csv: of {', '.join(sorted(evaluated))}, not of "
            f"{', '.join(sorted(titles.values()))}. `dvc repro` evaluates all models."
        )
    histories = {model: _read_table(f"plots/{model}/history.csv") for model in models}
    external = {
        name: _by_model(_read_table(f"plots/{name}/metrics.csv"), "metric")
        for name in external_tests
    }
    of_first = tables["per_class"]["model"] == titles[models[0]]
    count = int(tables["per_class"]["photos"][of_first].sum())

    # The pictures.
    photos = [
        ("Training photos after augmentation", "plots/augmented.png"),
        ("Most confident wrong, least confident correct predictions", "plots/extreme_cases.png"),
        ("Grad-CAM: the regions that support each prediction", "plots/heatmaps.png"),
    ]

    return (
        environment(autoescape=True)
        .get_template("report.html")
        .render(
            synthetic=next(iter(cards.values())).recipe["source"] == "sample",
            verdicts=verdicts(
                tables["comparison"],
                count,
                {one.network.title: one.weights for one in cards.values()},
            ),
            titles=titles,
            count=count,
            diagnoses=DIAGNOSES,
            cards=cards,
            training={model: _training(history) for model, history in histories.items()},
            metrics=_by_model(tables["metrics"], "metric"),
            per_class=_by_model(tables["per_class"], "dx"),
            referrals=[row for _, row in tables["operating_points"].iterrows()],
            comparison=[row for _, row in tables["comparison"].iterrows()],
            external=external,
            plots=draw_plots(),
            photos=[(title, _data_uri("png", Path(path).read_bytes())) for title, path in photos],
            params=yaml.safe_dump(_parameters_of_last_run(), sort_keys=False),
            commit=_run("git", "describe", "--always", "--dirty", "--abbrev=12").strip(),
        )
    )


def draw_plots() -> list[tuple[str, str, str]]:
    """Draw every plot of dvc.yaml with its template, in order: title, caption, SVG as data URI."""
    shown = json.loads(_run(sys.executable, "-m", "dvc", "plots", "show", "--json"))["data"]
    drawn = []
    for plot in (plot for plots in shown.values() for plot in plots if plot["type"] == "vega"):
        specification = plot["content"]
        title = specification.pop("title")
        svg = vl_convert.vegalite_to_svg(specification).encode()
        drawn.append((title["text"], title["subtitle"], _data_uri("svg+xml", svg)))
    return drawn


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LesionsError(f"`{' '.join(command[1:])}` failed: {done.stderr.strip()}")
    return done.stdout


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _read_table(name: str) -> pd.DataFrame:
    path = Path(name)
    if not path.exists():
        raise LesionsError(f"{path}: not found. `dvc repro` makes it.")
    return pd.read_csv(path)


def _training(history: pd.DataFrame) -> dict[str, float]:
    """Summarise a history: which epoch is used, how long training took, and how fast it was."""
    observations = (history["photos_per_second"] * history["seconds"]).sum()
    return {
        "best_epoch": int(history.loc[history["best"] == 1, "epoch"].iloc[0]),
        "seconds": float(history["seconds"].sum()),
        "photos_per_second": float(observations / history["seconds"].sum()),
    }


def _parameters_of_last_run() -> dict[str, Any]:
    """Read the parameters of the last run from dvc.lock; params.yaml may have changed since.

    dvc.lock keeps stages that the pipeline no longer has; they are left out.
    """
    stages = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    used: dict[str, Any] = {}
    for name in _run(sys.executable, "-m", "dvc", "stage", "list", "--name-only").split():
        used |= stages.get(name, {}).get("params", {}).get("params.yaml", {})
    return {key: used[key] for key in Params.model_fields if key in used}


def _by_model(table: pd.DataFrame, key: str) -> dict[str, dict[str, Any]]:
    """Nest the rows of a table: {value of `key`: {model: row}}."""
    return {
        str(name): {str(row["model"]): row for _, row in rows.iterrows()}
        for name, rows in table.groupby(key, sort=False)
    }
