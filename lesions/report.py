"""Report: everything the last run shows, as one page that opens without a network."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
import yaml

from lesions import cards
from lesions.comparison import conclude
from lesions.diagnoses import DIAGNOSES
from lesions.errors import LesionsError
from lesions.networks import ARCHITECTURES, read_card
from lesions.params import Params


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LesionsError(f"`{' '.join(command[1:])}` failed: {done.stderr.strip()}")
    return done.stdout


def drawings() -> list[tuple[str, str]]:
    """Draw every plot of dvc.yaml by its DVC template: title and data URI of an SVG, in order."""
    shown = json.loads(_run(sys.executable, "-m", "dvc", "plots", "show", "--json"))["data"]
    found = []
    for plot in (plot for plots in shown.values() for plot in plots if plot["type"] == "vega"):
        spec = plot["content"]
        title = spec.pop("title")
        text = title["text"] if isinstance(title, dict) else title
        # A plot of intervals of which none is known would be an empty frame.
        if any(row.get("low") != "" for row in spec["data"]["values"]):
            found.append((text, _uri("svg+xml", vl_convert.vegalite_to_svg(spec).encode())))
    return found


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def build(models: list[str]) -> str:
    """Fill templates/report.html from metrics/, plots/, models/ and dvc.lock.

    Args:
        models: as evaluated.

    Raises:
        LesionsError: a result is missing, or of other models.
    """
    tables = {name: _table(name) for name in ("scores", "per_class", "comparison")}
    titles = {model: ARCHITECTURES[model].title for model in models}
    if (evaluated := set(tables["scores"]["model"])) != set(titles.values()):
        raise LesionsError(
            f"plots/scores.csv: of {', '.join(sorted(evaluated))}, not of "
            f"{', '.join(sorted(titles.values()))}. `dvc repro` evaluates all models."
        )
    model_cards = {model: read_card(Path(f"models/{model}.safetensors")) for model in models}
    training = {
        model: json.loads(Path(f"metrics/training/{model}.json").read_text()) for model in models
    }
    photos = [
        ("What the networks are trained on", "plots/augmented.png"),
        ("What speaks for each answer", "plots/heatmaps.png"),
    ]
    for model, title in titles.items():
        photos.append((f"Where {title} was most and least sure", f"plots/{model}/telling.png"))
    shown = tables["per_class"]["model"] == titles[models[0]]
    count = int(tables["per_class"]["photos"][shown].sum())
    return (
        cards.templates(autoescape=True)
        .get_template("report.html")
        .render(
            drawn=next(iter(model_cards.values())).recipe["source"] == "sample",
            conclusions=conclude(tables["comparison"], count),
            titles=titles,
            count=count,
            diagnoses=DIAGNOSES,
            cards=model_cards,
            training=training,
            scores=_by_model(tables["scores"], "figure"),
            per_class=_by_model(tables["per_class"], "dx"),
            comparison=[row for _, row in tables["comparison"].iterrows()],
            drawings=drawings(),
            photos=[(title, _uri("png", Path(path).read_bytes())) for title, path in photos],
            params=yaml.safe_dump(_params(), sort_keys=False),
            commit=_run("git", "describe", "--always", "--dirty", "--abbrev=12").strip(),
        )
    )


def _table(name: str) -> pd.DataFrame:
    path = Path(f"plots/{name}.csv")
    if not path.exists():
        raise LesionsError(f"{path}: not found. `dvc repro` makes it.")
    return pd.read_csv(path)


def _params() -> dict[str, Any]:
    """Read the parameters of the last run, as DVC wrote them down: not those of the next."""
    stages = yaml.safe_load(Path("dvc.lock").read_text())["stages"].values()
    ran = {key: value for one in stages for key, value in one["params"]["params.yaml"].items()}
    return {key: ran[key] for key in Params.model_fields if key in ran}


def _by_model(table: pd.DataFrame, key: str) -> dict[str, dict[str, Any]]:
    """Nest rows: {figure: {model: row}}."""
    return {
        str(name): {str(row["model"]): row for _, row in rows.iterrows()}
        for name, rows in table.groupby(key, sort=False)
    }
