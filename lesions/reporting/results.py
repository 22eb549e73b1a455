"""The results of the last run, as data: everything that the report shows."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lesions.common.errors import LesionsError
from lesions.common.params import Params
from lesions.dataset.diagnoses import CODES
from lesions.dataset.splits import SUBSETS, find_leak
from lesions.evaluation.comparison import verdicts
from lesions.networks.model_card import ModelCard
from lesions.networks.model_file import read_card

Row = dict[str, Any]
TABLES = (
    *("metrics", "comparison", "per_class", "confusion", "decisions", "operating_points"),
    "subgroups",
)
EXTERNAL_TABLES = ("metrics", "operating_points", "per_class")


def read_results(models: list[str], external_tests: list[str]) -> dict[str, Any]:
    """Read what the stages wrote to metrics/, plots/, models/, data/split and dvc.lock.

    Args:
        models: all that were evaluated.
        external_tests: the names of the external test sets.

    Returns:
        Values that JSON can hold; numbers that are not defined are None.

    Raises:
        LesionsError: a result is missing, or the results are of other models.
    """
    cards = {model: read_card(Path(f"models/{model}.safetensors")) for model in models}
    titles = [card.network.title for card in cards.values()]
    tables = {name: _read_table(f"plots/{name}.csv") for name in TABLES}
    if (evaluated := set(tables["metrics"]["model"])) != set(titles):
        raise LesionsError(
            f"plots/metrics.csv: of {', '.join(sorted(evaluated))}, not of "
            f"{', '.join(sorted(titles))}. `dvc repro` evaluates all models."
        )
    test = _count_photos(tables["per_class"])
    starts = {card.network.title: card.weights for card in cards.values()}
    card = next(iter(cards.values()))
    return {
        "source": card.recipe["source"],
        "image_size": card.image_size,
        "run": describe_run(),
        "test_photos": test,
        "models": [_describe_model(model, card) for model, card in cards.items()],
        "leaking": _leaks(),
        "verdicts": verdicts(tables["comparison"], test, starts),
        **{name: _rows(table) for name, table in tables.items()},
        "external_tests": [_external(name) for name in external_tests],
        "photos": _count_split(),
        "audit": _read_table("data/split/audit.csv")["finding"].value_counts().to_dict(),
        "parameters": parameters_of_last_run(),
    }


def _read_table(name: str) -> pd.DataFrame:
    path = Path(name)
    if not path.exists():
        raise LesionsError(f"{path}: not found. `dvc repro` makes it.")
    return pd.read_csv(path)


def _rows(table: pd.DataFrame) -> list[Row]:
    """List the rows of a table, with None for what is missing."""
    rows: list[Row] = json.loads(table.to_json(orient="records", double_precision=15))
    return rows


def _count_photos(per_class: pd.DataFrame) -> int:
    """Count the photos of a test set."""
    return int(per_class.groupby("model")["photos"].sum().iloc[0])


def _describe_model(model: str, card: ModelCard) -> Row:
    """Say how a model was made: start, hardware, best epoch, time and speed of its training."""
    history = _read_table(f"plots/{model}/history.csv")
    observations = (history["photos_per_second"] * history["seconds"]).sum()
    return {
        "name": model,
        "title": card.network.title,
        "weights": card.weights,
        "seed": card.seed,
        "precision": card.precision,
        "device": card.device,
        "versions": card.versions,
        "epochs": len(history),
        "best_epoch": int(history.loc[history["best"] == 1, "epoch"].iloc[0]),
        "training_seconds": round(float(history["seconds"].sum()), 1),
        "photos_per_second": round(float(observations / history["seconds"].sum()), 1),
    }


def _external(name: str) -> Row:
    """Read the results on an external test set."""
    tables = {table: _read_table(f"plots/{name}/{table}.csv") for table in EXTERNAL_TABLES}
    return {
        "name": name,
        "photos": _count_photos(tables["per_class"]),
        **{key: _rows(table) for key, table in tables.items()},
    }


def _count_split() -> list[Row]:
    """Count photos and lesions of each diagnosis in train, validation and test; observations."""
    subsets = {name: _read_table(f"data/split/{name}.csv") for name in SUBSETS}
    observations = _read_table("data/balanced/train.csv")["dx"].value_counts()
    rows = []
    for code in CODES:
        row: Row = {"dx": code, "observations": int(observations.get(code, 0))}
        for name, table in subsets.items():
            of_class = table[table["dx"] == code]
            row[f"{name}_photos"] = len(of_class)
            row[f"{name}_lesions"] = int(of_class["lesion_id"].nunique())
        rows.append(row)
    return rows


def _leaks() -> list[str]:
    """Warn of validation or test photos whose lesions are in training."""
    train, val, test = (_read_table(f"data/split/{name}.csv") for name in SUBSETS)
    leaks = (find_leak(train, val, "validation"), find_leak(train, test, "test"))
    return [leak.warning for leak in leaks if leak]


def describe_run() -> Row:
    """Name the commit that holds the last run, and its date; the page's own commit is another.

    Returns:
        `commit` is the last one that changed dvc.lock; `committed` is false if dvc.lock has changed
        since. `date` is that of the commit, or of dvc.lock.
    """
    last = _run("git", "log", "-1", "--format=%h %cs", "--", "dvc.lock")
    commit, _, date = last.strip().partition(" ")
    committed = not _run("git", "status", "--porcelain", "--", "dvc.lock").strip()
    if not committed:
        written = Path("dvc.lock").stat().st_mtime
        date = datetime.fromtimestamp(written, UTC).date().isoformat()
    return {"commit": commit, "committed": committed, "date": date}


def parameters_of_last_run() -> Row:
    """Read the parameters of the last run from dvc.lock; params.yaml may have changed since.

    dvc.lock keeps stages that the pipeline no longer has; they are left out.
    """
    stages = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    used: Row = {}
    for name in _run(sys.executable, "-m", "dvc", "stage", "list", "--name-only").split():
        used |= stages.get(name, {}).get("params", {}).get("params.yaml", {})
    return {key: used[key] for key in Params.model_fields if key in used}


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LesionsError(f"{command[0]}: {error.strerror}.") from None
    if done.returncode:
        raise LesionsError(f"`{' '.join(command[1:])}` failed: {done.stderr.strip()}")
    return done.stdout
