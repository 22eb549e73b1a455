"""Compare: all experiments on validation. Not a stage of dvc.yaml, because it only reads."""

import subprocess
from pathlib import Path
from typing import Annotated, Any

import dvc.api
import typer
import yaml

from lesions.common.errors import LesionsError, run_cli
from lesions.common.params import load_params
from lesions.reporting.experiments import compare_experiments


def main(
    model: Annotated[
        str | None, typer.Argument(help="Show only this network; the best of it comes first.")
    ] = None,
) -> None:
    """List the experiments: what each one changed, and its weighted F1 on validation."""
    params = load_params()
    names = [model] if model else list(params.networks)
    titles = {name: params.network(name).title for name in names}
    try:
        rows = dvc.api.exp_show()
    except Exception as error:  # DVC's errors have many kinds
        raise LesionsError(f"dvc exp show: {error}") from None
    locks = {row["rev"]: read_lock(row["rev"]) for row in rows}
    print(compare_experiments(rows, titles, locks))


def read_lock(revision: str) -> dict[str, Any]:
    """Read dvc.lock of a revision, or of the workspace; empty if it has none."""
    if revision == "workspace":
        text = Path("dvc.lock").read_text() if Path("dvc.lock").exists() else ""
    else:
        command = ["git", "show", f"{revision}:./dvc.lock"]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return yaml.safe_load(text) or {}


if __name__ == "__main__":
    run_cli(main)
